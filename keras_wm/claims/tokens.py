"""Verification of a single time stamp with rfc3161-client.

The package checks the signature, the chain to the given roots at the time of the stamp,
that the signing certificate is for time stamps alone, and the stamped hash. It does not
check how long the certificates remain valid, nor revocation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_wm.claims.der import with_sorted_certificates
from keras_wm.errors import ClaimError
from keras_wm.utils.text import printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_MOST_CERTIFICATES = 10
_REASON_CHARS = 200


class TokenError(Exception):
    """A time stamp is not valid. The message is a part of a sentence."""


@dataclass(frozen=True)
class Token:
    """A time stamp that was verified.

    Attributes:
        time: The time that the authority gave.
        until: The end of the validity of its certificates.
        authority: Name in the signing certificate.
    """

    time: datetime
    until: datetime
    authority: str


def import_client() -> Any:
    """Returns the package rfc3161_client, or raises an error that names the extra."""
    try:
        import rfc3161_client
    except ImportError as error:
        raise ImportError(
            "Time stamps need the package rfc3161-client. "
            'Install it with: pip install "keras-wm[claims]"'
        ) from error
    return rfc3161_client


def read_certificates(path: Path) -> list[Certificate]:
    """Reads certificates in PEM.

    Raises:
        ClaimError: If the file cannot be read, or has none.
    """
    import_client()
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ClaimError(
            "Expected a file with root certificates of time-stamping authorities in "
            f"PEM. Received: {str(path)!r} ({error})"
        ) from error


def verify_token(
    response: bytes,
    message: bytes,
    roots: Sequence[Certificate],
    nonce: int | None = None,
) -> Token:
    """Verifies a time stamp of a message.

    Args:
        response: The answer of the authority.
        message: The bytes whose SHA-256, or SHA-512, was stamped.
        roots: Certificates that the verifier trusts.
        nonce: The nonce of the request, if it is known.

    Returns:
        The `Token`.

    Raises:
        TokenError: If the stamp is not valid.
    """
    client = import_client()
    token = decode(response)
    # The arguments, because the methods of the builder change lists that it shares.
    verifier = client.VerifierBuilder(roots=list(roots), nonce=nonce).build()
    try:
        verifier.verify_message(token, message)
        signer, others = _certificates(token)
        until = _valid_until(signer, [*others, *roots], roots)
        return Token(token.tst_info.gen_time, until, signer.subject.rfc4514_string())
    except TokenError:
        raise
    except client.VerificationError as error:
        raise TokenError(_reason(str(error))) from error
    # A hostile certificate makes cryptography raise exceptions of many kinds.
    except Exception as error:
        raise TokenError(f"it is damaged ({type(error).__name__})") from error


def decode(response: bytes) -> Any:
    """Returns the answer of an authority; raises TokenError unless it is one."""
    client = import_client()
    try:
        return client.decode_timestamp_response(with_sorted_certificates(response))
    except ValueError as error:
        raise TokenError("it is not an answer of RFC 3161") from error


def _certificates(token: Any) -> tuple[Certificate, list[Certificate]]:
    """Returns the signing certificate and all other certificates of a stamp."""
    from cryptography import x509

    encoded = token.signed_data.certificates
    if len(encoded) > _MOST_CERTIFICATES:
        raise TokenError(f"it has {len(encoded)} certificates")
    certificates = [x509.load_der_x509_certificate(data) for data in sorted(encoded)]
    (signer,) = token.signed_data.signer_infos
    signing = [
        certificate
        for certificate in certificates
        if certificate.issuer == signer.issuer
        and certificate.serial_number == signer.serial_number
    ]
    if len(signing) != 1:
        raise TokenError("it does not contain its signing certificate once")
    return signing[0], [member for member in certificates if member != signing[0]]


def _valid_until(
    signer: Certificate, issuers: Sequence[Certificate], roots: Sequence[Certificate]
) -> datetime:
    """Returns the end of the validity of a chain: that of the longest valid chain."""
    candidates = {certificate: certificate for certificate in issuers}
    ends = {root: root.not_valid_after_utc for root in roots if _issued(root, root)}
    waiting = list(ends)
    while waiting:
        issuer = waiting.pop()
        for certificate in [*candidates, signer]:
            if certificate == issuer or not _issued(issuer, certificate):
                continue
            end = min(ends[issuer], certificate.not_valid_after_utc)
            if certificate not in ends or end > ends[certificate]:
                ends[certificate] = end
                waiting.append(certificate)
    if signer not in ends:
        raise TokenError("its certificates form no chain to a trusted root")
    return ends[signer]


def _issued(issuer: Certificate, certificate: Certificate) -> bool:
    """Returns whether one certificate is that of an authority that signed another."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints)
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError, x509.ExtensionNotFound):
        return False
    return constraints.value.ca


def _reason(message: str) -> str:
    """Returns a complaint of the package in plain words."""
    for part, reason in (
        (
            "Mismatch between messages",
            "it stamps something else: the claim was changed, or the stamp is another "
            "claim's",
        ),
        (
            "verify pkcs7",
            "its signature does not lead to a trusted root, by certificates that are "
            "valid at its time and made for time stamps",
        ),
        ("Error while verifying", "its signature cannot be read"),
        ("Nonce", "it answers another request"),
        ("PKIStatus", "the authority refused the request"),
    ):
        if part in message:
            return reason
    return printable(message, _REASON_CHARS)
