"""The standing of a finding: what it rests on, and for whom it is evidence.

A p-value is exact for a test that was fixed beforehand. Whatever can still be chosen
after the model was seen is counted, is fixed by a dated claim, or makes the finding
private. `CHOICES` says which of them applies to every argument of `verify`, `identify`,
`compare` and `scan` and to every option of their commands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from math import log10
from types import MappingProxyType
from typing import Final

from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arguments import check_choice

# Corrected p-values below these are called marked and proven.
MARKED: Final = 1e-9
PROVEN: Final = 2.0**-64


class Standing(StrEnum):
    """The basis of a finding. Findings are ranked by it before their p-values.

    Attributes:
        INDEPENDENT: Nothing was left to choose but what the p-value counts.
        CLAIMED: The free choices are fixed by a claim that was dated before the model
            appeared.
        PRIVATE: It rests on a choice that nothing dated fixes. It may convince its
            owner, but is not evidence for anybody else.
    """

    INDEPENDENT = "independent"
    CLAIMED = "claimed"
    PRIVATE = "private"


class Handling(StrEnum):
    """The way to keep an argument from making a finding more significant.

    Attributes:
        SUBJECT: It says which model or key the question is about.
        COUNTED: The p-value is multiplied by the number of possible choices.
        CLAIM: The finding is private unless a dated claim fixes the choice.
        STATED: The report states it. It changes no p-value.
        EVIDENCE: It only decides which findings a claim supports.
        NEUTRAL: It changes no result.
    """

    SUBJECT = "subject"
    COUNTED = "counted"
    CLAIM = "claim"
    STATED = "stated"
    EVIDENCE = "evidence"
    NEUTRAL = "neutral"


CHOICES: Final[Mapping[str, Handling]] = MappingProxyType(
    {
        # The disputed model. `sources` and `list` are its names in a scan.
        "model": Handling.SUBJECT,
        "disputed": Handling.SUBJECT,
        "sources": Handling.COUNTED,
        "list": Handling.COUNTED,
        # A derived key costs a whole derivation for each try, so a p-value below
        # 2**-64 needs no date. Keys with free parts are private, see `free_choices`.
        "key": Handling.SUBJECT,
        "keys": Handling.COUNTED,
        "parties": Handling.SUBJECT,
        "layer": Handling.COUNTED,
        "slots": Handling.COUNTED,
        "reordered": Handling.COUNTED,
        "recipients": Handling.CLAIM,
        "reference": Handling.CLAIM,
        "checkpoint": Handling.CLAIM,
        "original": Handling.CLAIM,
        "alpha": Handling.STATED,
        "claim": Handling.EVIDENCE,
        "published": Handling.EVIDENCE,
        "controls": Handling.EVIDENCE,
        "tsa_certificates": Handling.EVIDENCE,
        "require": Handling.EVIDENCE,
        "limits": Handling.NEUTRAL,
        "sandbox": Handling.NEUTRAL,
        "progress": Handling.NEUTRAL,
        "workers": Handling.NEUTRAL,
        "client": Handling.NEUTRAL,
        "record": Handling.NEUTRAL,
        "on_result": Handling.NEUTRAL,
        "json": Handling.NEUTRAL,
    }
)

# The verdict on a mark that is in unused weights only, as text.
UNUSED_VERDICT: Final = "found in weights that this model does not use"

# Why a choice that is free makes a finding private.
_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "arrays": "the key was given as arrays, which can be solved for",
        "seed": "the seed of an opened slot can be chosen freely",
        "groups": "the key has a number of weight vectors that its owner chose",
        "recipient": "the recipient's name was chosen freely",
        "reference": "the reference can be made to fit the key",
        "checkpoint": "the checkpoint can be made to fit the key",
        "original": "the original can be made to fit the key",
    }
)


def free_choices(key: WatermarkKey) -> frozenset[str]:
    """Returns the names of the choices in a key that neither it nor a count fixes."""
    choices = []
    if key.projection == "explicit":
        choices.append("arrays")
    elif key.opened:
        choices.append("seed")
    elif not key.certified:
        choices.append("groups")
    if key.recipient:
        choices.append("recipient")
    return frozenset(choices)


def is_evidence(standing: Standing, log10_p: float) -> bool:
    """Returns whether a finding is evidence for others without a further date.

    Without a date, somebody can try keys until one fits, at the cost of a derivation
    for each. Only a p-value below 2**-64 rules that out.
    """
    if standing is Standing.INDEPENDENT:
        return log10_p < log10(PROVEN)
    return standing is Standing.CLAIMED and log10_p < log10(MARKED)


def meets(required: str | None, standing: Standing, log10_p: float) -> bool:
    """Returns whether a finding has a required standing, and is evidence.

    Args:
        required: `"independent"`, `"claimed"` (or independent), or `None`.
        standing: Standing of the finding.
        log10_p: log10 of its corrected p-value.

    Raises:
        ValueError: If another standing is required.
    """
    if required is None:
        return True
    check_choice("required", required, (Standing.INDEPENDENT, Standing.CLAIMED))
    return is_evidence(standing, log10_p) and (
        standing is Standing.INDEPENDENT or required == Standing.CLAIMED
    )


def rank(standing: Standing, log10_p: float, alpha: float) -> tuple[float, ...]:
    """Returns a sort key: findings first, then evidence, standing and p-value."""
    return (
        log10_p >= log10(alpha),
        not is_evidence(standing, log10_p),
        list(Standing).index(standing),
        log10_p,
    )


def describe(standing: Standing, log10_p: float, choices: Collection[str]) -> str:
    """Returns the standing of a finding and what follows from it, on one line."""
    consequence = explain(standing, log10_p, choices)
    return f"{standing}: {consequence}" if consequence else str(standing)


def explain(standing: Standing, log10_p: float, choices: Collection[str]) -> str:
    """Returns why a finding is not evidence for others; empty if it is.

    Args:
        standing: Standing of the finding.
        log10_p: log10 of its corrected p-value.
        choices: Names of the free choices that it rests on.
    """
    if standing is Standing.PRIVATE:
        reasons = ", and ".join(_REASONS[name] for name in sorted(choices))
        return f"{reasons}. It is not evidence for anybody else"
    if standing is Standing.CLAIMED or is_evidence(standing, log10_p):
        return ""
    return "evidence only with a commitment of the key that is older than the model"
