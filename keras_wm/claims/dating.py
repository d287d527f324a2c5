"""The date of a claim: offline checks of its time stamps (RFC 3161).

A claim can have several stamps. A stamp counts while its certificates are valid. A
renewal covers the claim and all stamps before it, so a stamp also counts if it was
still valid when a later renewal was made that counts itself, as in RFC 4998.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from keras_wm.claims.tokens import Token, TokenError, read_certificates, verify_token
from keras_wm.errors import ClaimError
from keras_wm.utils.text import printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from keras_wm.claims.claim import Claim

# Files of root certificates in PEM.
Certificates: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# Clocks of an authority and of this machine can differ.
_CLOCK_ERROR = timedelta(minutes=10)


@dataclass(frozen=True)
class Dating:
    """The date of a claim, and what it rests on.

    Attributes:
        date: Time of the earliest stamp that counts.
        authority: Name in the certificate of the authority that gave it.
        until: Time until which it counts. Renew the claim before.
        renewals: Number of renewals that it needs to count today.
    """

    date: datetime
    authority: str
    until: datetime
    renewals: int


def dated(
    claim: Claim, tsa_certificates: Certificates, now: datetime | None = None
) -> datetime:
    """Returns the date of a claim, from its time stamps and without a network.

    Only authorities count whose root certificates are passed, not those in the stamps
    themselves. Each certificate of the chain has to be valid at the time of the stamp,
    and until now or until a later renewal. The signing certificate has to be one for
    time stamps alone. Revocation is not checked.

    Args:
        claim: The `Claim`.
        tsa_certificates: One or several files with the root certificates that the
            verifier trusts, in PEM. Intermediate certificates that the stamps do not
            contain can be among them.
        now: Time at which the stamps have to count. Defaults to the current time.

    Returns:
        The time of the earliest stamp that counts, with a time zone.

    Raises:
        ClaimError: If no stamp counts.
        ImportError: If the package rfc3161-client is not installed.

    Example:

    ```python
    claim = keras_wm.Claim.load("model.claim")
    keras_wm.claims.dated(claim, "authority-root.pem")
    ```
    """
    return check_stamps(claim, tsa_certificates, now).date


def check_stamps(
    claim: Claim, tsa_certificates: Certificates, now: datetime | None = None
) -> Dating:
    """Returns the date of a claim and what it rests on; see `dated`."""
    roots = read_all(tsa_certificates)
    now = now or datetime.now(UTC)
    if now.tzinfo is None:
        raise ValueError(f"Expected a time with a time zone. Received: now={now!r}")
    if not claim.stamps:
        raise ClaimError(
            "The claim has no time stamp. Stamp it: keras-wm claim stamp CLAIM --tsa "
            "URL"
        )
    tokens, problems = _verify_all(claim, roots, now)
    lifetimes = _lifetimes(claim, tokens, now)
    counting = [
        (tokens[index], until, renewals)
        for index, (until, renewals) in lifetimes.items()
        if not claim.stamps[index].renewal
    ]
    if not counting:
        expired = [token for index, token in tokens.items() if index not in lifetimes]
        raise ClaimError(_not_dated(problems, expired))
    token, until, renewals = min(counting, key=lambda entry: entry[0].time)
    return Dating(token.time, token.authority, until, renewals)


def _verify_all(
    claim: Claim, roots: Sequence[Certificate], now: datetime
) -> tuple[dict[int, Token], list[str]]:
    """Returns the stamps that are valid by themselves, and why others are not."""
    tokens: dict[int, Token] = {}
    problems = []
    for index, stamp in enumerate(claim.stamps):
        covered = claim.stamps[:index] if stamp.renewal else ()
        try:
            token = verify_token(stamp.response, claim.stamped_bytes(covered), roots)
            if token.time > now + _CLOCK_ERROR:
                raise TokenError(f"its time, {token.time}, has not come yet")
            tokens[index] = token
        except TokenError as error:
            problems.append(f"stamp {index + 1}: {error}")
    return tokens, problems


def _lifetimes(
    claim: Claim, tokens: dict[int, Token], now: datetime
) -> dict[int, tuple[datetime, int]]:
    """Returns the stamps that count now.

    Returns:
        By the index of a stamp, the time until which it counts, and the number of
        renewals that it needs.
    """
    counting: dict[int, tuple[datetime, int]] = {}
    for index, token in sorted(tokens.items(), reverse=True):
        lives = [(token.until, 0)] if token.until >= now else []
        lives += [
            (until, renewals + 1)
            for later, (until, renewals) in counting.items()
            if claim.stamps[later].renewal
            and token.time <= tokens[later].time <= token.until
        ]
        if lives:
            fewest = min(renewals for _, renewals in lives)
            counting[index] = max(until for until, _ in lives), fewest
    return counting


def _not_dated(problems: Sequence[str], expired: Sequence[Token]) -> str:
    problems = [
        *problems,
        *(
            f"the certificates of {token.authority!r} expired on {token.until:%Y-%m-%d}"
            " and no renewal before that day counts"
            for token in expired
        ),
    ]
    return (
        "The claim is not dated: "
        + "; ".join(map(printable, problems))
        + ". Expected a stamp of an authority whose root certificate is passed. Pass "
        "the roots of the authorities that you trust, or stamp the claim again."
    )


def read_all(files: Certificates) -> list[Certificate]:
    """Returns the certificates in one or several files in PEM."""
    paths = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    return [
        certificate for path in paths for certificate in read_certificates(Path(path))
    ]
