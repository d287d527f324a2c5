"""Checks of a whole claim, with a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keras_wm.claims.claim import Claim
from keras_wm.claims.dating import Certificates, Dating, check_stamps
from keras_wm.claims.model_digest import ModelDigest
from keras_wm.errors import ClaimError
from keras_wm.files import Limits, ModelSource, Sandbox
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.report import TextReport

_TIME = "%Y-%m-%d %H:%M:%S UTC"


@dataclass(frozen=True, repr=False)
class ClaimCheck(TextReport):
    """Report of `check_claim`. It prints as text, and as a table in a notebook.

    Attributes:
        claim: The `Claim`.
        dating: The date that was confirmed, or `None`.
        findings: The name of each question, whether the claim confirms it, and a
            sentence.
    """

    claim: Claim
    dating: Dating | None
    findings: Sequence[tuple[str, bool, str]]

    @property
    def valid(self) -> bool:
        """True if something was asked, and everything that was asked is confirmed."""
        confirmed = [confirmed for _, confirmed, _ in self.findings]
        return bool(confirmed) and all(confirmed)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, which JSON can hold."""
        dating = self.dating
        return {
            "valid": self.valid,
            "digest": self.claim.digest,
            "date": dating.date.isoformat() if dating else None,
            "authority": dating.authority if dating else None,
            "until": dating.until.isoformat() if dating else None,
            "renewals": dating.renewals if dating else None,
            "findings": {
                name: {"confirmed": confirmed, "text": text}
                for name, confirmed, text in self.findings
            },
            "claim": self.claim.facts(),
        }

    def rows(self) -> list[tuple[str, str]]:
        """Returns the report as pairs of a name and a value."""
        claim, asked = self.claim, {name for name, _, _ in self.findings}
        optional = {
            "checkpoint": claim.checkpoint and f"weights {claim.checkpoint.weights}",
            "recipients": claim.recipients and f"{claim.recipients.number:,}",
            "predecessor": claim.predecessor,
            "released": "before the claim was made" if claim.released else None,
        }
        return [
            ("claim", "CONFIRMED" if self.valid else "NOT CONFIRMED"),
            *((name, text) for name, _, text in self.findings),
            *(() if "date" in asked else (("date", "not checked: no certificates"),)),
            ("digest", claim.digest),
            ("owner", claim.owner),
            ("commitment", claim.commitment),
            ("file", claim.model.file or "several files, or a model in memory"),
            ("weights", claim.model.weights),
            *(
                ("layer", f"{layer.name}, slot {layer.slot}, shape {layer.shape}")
                for layer in claim.layers
            ),
            *((name, text) for name, text in optional.items() if text),
        ]


def check_claim(
    claim: Claim,
    *,
    tsa_certificates: Certificates | None = None,
    model: ModelSource | None = None,
    key: WatermarkKey | None = None,
    opening: WatermarkKey | None = None,
    recipients: Sequence[str] | None = None,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
) -> ClaimCheck:
    """Checks the date of a claim, and what it is made for.

    Args:
        claim: The `Claim`.
        tsa_certificates: Root certificates of the authorities that the verifier trusts,
            as for `dated`. `None` does not check the date.
        model: The model that the claim should be made for.
        key: The key that it should be made for.
        opening: An opened slot that should belong to it.
        recipients: Names of all recipients that it should list, if `key` is the owner's
            whole key.
        limits: `Limits` on the resources that reading the model can use.
        sandbox: Whether to read the model in a child process, or the `Sandbox`.

    Returns:
        A `ClaimCheck`.

    Raises:
        ModelFileError: If the model cannot be read.
    """
    dating, findings = None, []
    if tsa_certificates:
        try:
            dating = check_stamps(claim, tsa_certificates)
            findings.append(("date", True, _describe(dating)))
        except ClaimError as error:
            findings.append(("date", False, str(error)))
    if model is not None:
        received = ModelDigest.of(model, limits, sandbox)
        findings.append(("model", *_compare(claim.model, received)))
    if key is not None:
        findings.append(("key", *_attempt(lambda: claim.check_key(key))))
        if recipients is not None:
            listed = _attempt(lambda: claim.check_recipients(key, recipients))
            findings.append(("list", *listed))
    if opening is not None:
        findings.append(("opening", *_attempt(lambda: claim.check_key(opening))))
    return ClaimCheck(claim, dating, findings)


def _attempt(check: Callable[[], None]) -> tuple[bool, str]:
    try:
        check()
    except ClaimError as error:
        return False, str(error)
    return True, "belongs to the claim"


def _compare(claimed: ModelDigest, received: ModelDigest) -> tuple[bool, str]:
    if received.weights != claimed.weights:
        return False, (
            f"another model than the claimed one: its weights have the digest "
            f"{received.weights}"
        )
    if claimed.file is not None and received.file == claimed.file:
        return True, "the claimed file, byte for byte"
    return True, "the claimed weights, in another file"


def _describe(dating: Dating) -> str:
    renewed = f", renewed {dating.renewals} times" if dating.renewals else ""
    return (
        f"{dating.date.strftime(_TIME)}, by {dating.authority}{renewed}; counts until "
        f"{dating.until.strftime(_TIME)}"
    )
