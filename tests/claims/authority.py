"""A real time-stamping authority: `openssl ts` with certificates made here."""

import datetime
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the program openssl is not installed"
)

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
_TOKEN_INFO = "1.2.840.113549.1.9.16.1.4"
_RESPONSE = "application/timestamp-reply"


def years(count):
    """Returns the time in so many years."""
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(365 * count)


class Authority:
    """An authority with a root, an intermediate and a signing certificate.

    Args:
        folder: An empty folder for its files.
        name: Name in the certificates.
        usage: Extended key usages of the signing certificate; `None` for no extension.
        critical: Whether that extension is critical.
        valid: Years from now in which the signing certificate is valid.
        root_valid: Years from now in which root and intermediate are valid.
    """

    def __init__(
        self,
        folder,
        name="Authority",
        usage=(ExtendedKeyUsageOID.TIME_STAMPING,),
        critical=True,
        valid=(-10, 5),
        root_valid=(-20, 60),
    ):
        folder.mkdir(parents=True)
        self.folder, self.requests = folder, 0
        root_key, root = _certificate(f"{name} root", root_valid)
        middle = _certificate(f"{name} CA", root_valid, (root_key, root))
        key, signer = _certificate(f"{name} TSA", valid, middle, usage, critical)
        self.roots, self.chain = folder / "roots.pem", folder / "chain.pem"
        self.roots.write_bytes(_pem(root))
        self.chain.write_bytes(_pem(middle[1]))
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

    def respond(self, query):
        """Returns the answer to a request."""
        (self.folder / "query.tsq").write_bytes(query)
        self.requests += 1
        return self._openssl(
            *("ts", "-reply", "-config", "tsa.cnf", "-section", "here"),
            *("-queryfile", "query.tsq"),
        )

    def respond_at(self, query, time, signer=None):
        """Returns an answer with another time, signed by `openssl cms`.

        Args:
            query: The request.
            time: The time that the answer gives.
            signer: The authority that signs it, which `openssl ts` can refuse to do.
                Defaults to this one.
        """
        (self.folder / "query.tsq").write_bytes(query)
        token = self._openssl(
            *("ts", "-reply", "-config", "tsa.cnf", "-section", "here"),
            *("-queryfile", "query.tsq", "-token_out"),
        )
        (self.folder / "token.der").write_bytes(token)
        info = self._openssl(
            *("cms", "-verify", "-noverify", "-inform", "DER", "-in", "token.der")
        )
        stamped = time.strftime("%Y%m%d%H%M%SZ").encode()
        info, changed = re.subn(rb"20\d{12}Z", stamped, info)
        assert changed == 1
        signer = signer or self
        (signer.folder / "info.der").write_bytes(info)
        signed = signer._openssl(
            *("cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-cades"),
            *("-econtent_type", _TOKEN_INFO, "-in", "info.der", "-nosmimecap"),
            *("-signer", "signer.pem", "-inkey", "signer.key", "-md", "sha256"),
            *("-certfile", "chain.pem"),
        )
        return _sequence(_sequence(b"\x02\x01\x00") + signed)

    @contextmanager
    def serving(self, answer=None, status=200, kind=_RESPONSE):
        """Serves the authority on loopback; yields its URL.

        Args:
            answer: Function from a request to the answer. Defaults to `respond`.
            status: Status of HTTP.
            kind: Type of the content.
        """
        respond = answer or self.respond

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                assert self.headers["Content-Type"] == "application/timestamp-query"
                body = respond(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(
                target=server.serve_forever, args=(0.01,), daemon=True
            )
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/tsr"
            finally:
                server.shutdown()
                thread.join()

    def _openssl(self, *arguments):
        finished = subprocess.run(
            ["openssl", *arguments], cwd=self.folder, capture_output=True, check=False
        )
        assert finished.returncode == 0, finished.stderr.decode()
        return finished.stdout


def _sequence(content):
    """Returns bytes as a sequence of ASN.1."""
    size = len(content).to_bytes(4, "big").lstrip(b"\0")
    length = size if len(content) < 128 else bytes([0x80 | len(size)]) + size
    return b"\x30" + length + content


def _certificate(name, valid, issuer=None, usage=None, critical=True):
    """Returns a key and its certificate; that of a root without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key, issuer_certificate = issuer or (key, None)
    is_authority = not name.endswith("TSA")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_certificate.subject if issuer_certificate else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(years(valid[0]))
        .not_valid_after(years(valid[1]))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical)
    return key, builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)
