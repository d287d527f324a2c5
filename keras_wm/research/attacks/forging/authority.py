"""A time-stamping authority of one's own, to date claims for real.

Requests of RFC 3161 are answered by the program `openssl ts`, with certificates that
are made here. To trust its root is to trust the clock of this machine.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from keras_wm.claims.claim import Claim
from keras_wm.claims.facts import Stamp
from keras_wm.claims.tokens import import_client

_CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
certs = {folder}/chain.pem
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha1, sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""

_Key = ec.EllipticCurvePrivateKey
# Start and end of a validity, in years from now.
_Years = tuple[float, float]


class LocalAuthority:
    """An authority with a root, an intermediate and a signing certificate.

    Args:
        folder: A new folder for its files.
        name: Name in the certificates.
        usage: Extended key usages of the signing certificate; `None` for no extension.
        critical: Whether that extension is critical.
        valid: Years from now in which the signing certificate is valid.
        root_valid: Years from now in which root and intermediate are valid.

    Raises:
        FileNotFoundError: If the program openssl is not installed.

    Attributes:
        folder: The folder.
        roots: File with the root certificate, in PEM.
        chain: File with the intermediate certificate, in PEM.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "Authority",
        usage: Sequence[ObjectIdentifier] | None = (ExtendedKeyUsageOID.TIME_STAMPING,),
        critical: bool = True,
        valid: _Years = (-10, 5),
        root_valid: _Years = (-20, 60),
    ) -> None:
        program = shutil.which("openssl")
        if program is None:
            raise FileNotFoundError(
                "A time-stamping authority needs the program openssl, which is not "
                "installed. Install it with the package manager of the system."
            )
        folder.mkdir(parents=True)
        self.folder, self._program = folder, program
        root_key, root = _certificate(f"{name} root", root_valid)
        middle_key, middle = _certificate(f"{name} CA", root_valid, (root_key, root))
        key, signer = _certificate(
            f"{name} TSA", valid, (middle_key, middle), usage, critical
        )
        self.roots, self.chain = folder / "roots.pem", folder / "chain.pem"
        self.roots.write_bytes(_pem(root))
        self.chain.write_bytes(_pem(middle))
        (folder / "signer.pem").write_bytes(_pem(signer))
        (folder / "signer.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (folder / "serial").write_text("01")
        (folder / "tsa.cnf").write_text(_CONFIG.format(folder=folder))

    def stamped(self, claim: Claim) -> Claim:
        """Returns a claim with a stamp of the current time."""
        client = import_client()
        request = client.TimestampRequestBuilder(
            claim.stamped_bytes(), client.HashAlgorithm.SHA256
        ).build()
        return claim.with_stamp(Stamp(self.respond(request.as_bytes())))

    def respond(self, query: bytes) -> bytes:
        """Returns the answer to a request, both in DER."""
        (self.folder / "query.tsq").write_bytes(query)
        return self.openssl(
            *("ts", "-reply", "-config", "tsa.cnf", "-section", "here"),
            *("-queryfile", "query.tsq"),
        )

    def openssl(self, *arguments: str) -> bytes:
        """Runs openssl in the folder, and returns what it prints.

        Raises:
            RuntimeError: If it fails.
        """
        finished = subprocess.run(  # noqa: S603
            [self._program, *arguments],
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        if finished.returncode:
            raise RuntimeError(f"openssl failed: {finished.stderr.decode().strip()}")
        return finished.stdout


def years(count: float) -> datetime:
    """Returns the time in so many years."""
    return datetime.now(UTC) + timedelta(365 * count)


def _certificate(
    name: str,
    valid: _Years,
    issuer: tuple[_Key, x509.Certificate] | None = None,
    usage: Sequence[ObjectIdentifier] | None = None,
    critical: bool = True,
) -> tuple[_Key, x509.Certificate]:
    """Returns a key and its certificate; that of a root without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key, issuer_name = key, subject
    if issuer:
        issuer_key, issuer_name = issuer[0], issuer[1].subject
    is_authority = not name.endswith("TSA")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(years(valid[0]))
        .not_valid_after(years(valid[1]))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical)
    return key, builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
