"""Time stamps from an authority (RFC 3161 over HTTP)."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_wm.claims.dating import Certificates, read_all
from keras_wm.claims.facts import MOST_TOKEN_BYTES, Stamp
from keras_wm.claims.tokens import TokenError, decode, import_client, verify_token
from keras_wm.errors import ClaimError
from keras_wm.utils.text import printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from keras_wm.claims.claim import Claim

_QUERY = "application/timestamp-query"
_REPLY = "application/timestamp-reply"
_SECONDS = 30.0
_BLOCK = 2**12
_GRANTED = 0


def stamp(
    claim: Claim,
    tsa_url: str,
    tsa_certificates: Certificates | None = None,
    timeout: float = _SECONDS,
) -> Claim:
    """Asks a time-stamping authority for a stamp of a claim's digest.

    The authority sees the digest only. Its answer is checked before it is used.

    Args:
        claim: The `Claim`.
        tsa_url: URL of the authority, with `http` or `https`.
        tsa_certificates: Files with the authority's root certificates in PEM, as for
            `dated`. With them, the stamp is verified completely. Defaults to `None`.
        timeout: Longest time to wait for the answer, in seconds. Defaults to 30.

    Returns:
        The claim with the stamp. Save it with `claim.save(path, overwrite=True)`.

    Raises:
        ClaimError: If the authority cannot be reached, refuses the request, or gives
            an answer that is not a valid stamp of the claim.
        ImportError: If the package rfc3161-client is not installed.

    Example:

    ```python
    claim = keras_wm.claims.stamp(claim, "https://authority.example/tsr")
    claim.save("model.claim", overwrite=True)
    ```
    """
    return _stamped(claim, tsa_url, tsa_certificates, timeout, renewal=False)


def renew(
    claim: Claim,
    tsa_url: str,
    tsa_certificates: Certificates | None = None,
    timeout: float = _SECONDS,
) -> Claim:
    """Asks an authority for a stamp of a claim and of all its stamps.

    A stamp counts only while its certificates are valid. Renew it before they expire,
    at any authority: the claim keeps its date.

    Args:
        claim: A `Claim` with at least one stamp.
        tsa_url: URL of the authority, as for `stamp`.
        tsa_certificates: The authority's root certificates, as for `stamp`.
        timeout: Longest time to wait for the answer, in seconds. Defaults to 30.

    Returns:
        The claim with the new stamp.

    Raises:
        ClaimError: If the claim has no stamp, and as for `stamp`.
        ImportError: If the package rfc3161-client is not installed.
    """
    if not claim.stamps:
        raise ClaimError(
            "Expected a claim with a time stamp to renew. Received one without stamps. "
            "Stamp it first: keras-wm claim stamp CLAIM --tsa URL"
        )
    return _stamped(claim, tsa_url, tsa_certificates, timeout, renewal=True)


def _stamped(
    claim: Claim,
    url: str,
    certificates: Certificates | None,
    timeout: float,
    renewal: bool,
) -> Claim:
    client = import_client()
    roots = read_all(certificates) if certificates is not None else []
    message = claim.stamped_bytes(claim.stamps if renewal else ())
    request = client.TimestampRequestBuilder(
        message, client.HashAlgorithm.SHA256, nonce=True, cert_req=True
    ).build()
    response = _ask(url, request.as_bytes(), timeout)
    try:
        _check_answer(response, request, message, roots)
    except TokenError as error:
        raise ClaimError(
            f"The answer of {url} is not a stamp of this claim: {error}. Nothing was "
            "saved. Try again, or use another authority."
        ) from error
    return claim.with_stamp(Stamp(response, renewal))


def _check_answer(
    response: bytes, request: Any, message: bytes, roots: Sequence[Certificate]
) -> None:
    """Raises TokenError unless an answer is a stamp of what was requested.

    Without roots, nothing is known of the authority, and its signature is not checked.
    """
    if roots:
        verify_token(response, message, roots, request.nonce)
        return
    token = decode(response)
    if token.status != _GRANTED:
        texts = ", ".join(map(str, token.status_string)) or f"status {token.status}"
        raise TokenError(f"the authority refused the request ({printable(texts)})")
    info = token.tst_info
    if info.nonce != request.nonce:
        raise TokenError("it answers another request: its nonce is another one")
    received, expected = info.message_imprint, request.message_imprint
    if (received.hash_algorithm, received.message) != (
        expected.hash_algorithm,
        expected.message,
    ):
        raise TokenError("it stamps another hash")


def _ask(url: str, query: bytes, timeout: float) -> bytes:
    """Sends a request to an authority and returns its answer, of a limited size."""
    if not url.lower().startswith(("http://", "https://")):
        raise ClaimError(
            "Expected the URL of a time-stamping authority, with http or https. "
            f"Received: {url!r}"
        )
    request = urllib.request.Request(url, query, {"Content-Type": _QUERY})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            kind = answer.headers.get_content_type()
            if kind != _REPLY:
                raise ClaimError(
                    f"Expected an answer of type {_REPLY} from {url}. Received: "
                    f"{printable(kind)}. Check the URL of the authority."
                )
            return _read(answer, url, time.monotonic() + timeout)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, ClaimError):
            raise
        reason = printable(str(error) or type(error).__name__)
        raise ClaimError(
            f"The authority at {url} gave no answer: {reason}. Nothing was saved. Try "
            "again, or use another authority."
        ) from error


def _read(answer: Any, url: str, deadline: float) -> bytes:
    data = b""
    while block := answer.read1(_BLOCK):
        data += block
        if len(data) > MOST_TOKEN_BYTES:
            raise ClaimError(
                f"The answer of {url} is larger than {MOST_TOKEN_BYTES:,} bytes. "
                "Expected a time stamp. Check the URL of the authority."
            )
        if time.monotonic() > deadline:
            raise ClaimError(
                f"The authority at {url} takes too long to answer. Try again, or use "
                "another authority."
            )
    return data
