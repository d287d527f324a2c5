"""Findings that rest on a claim: whether it counts, and the test that it describes.

A claim fixes what its owner could otherwise choose after seeing the disputed model. It
counts if it was dated before that model, and everything which the model descends from,
first appeared. Anybody who knows a public model can make a reference for it. So a claim
is not evidence against a model that was public when the claim was dated.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any, TypeAlias

from keras_wm.claims.claim import Claim
from keras_wm.claims.dating import Certificates, Dating, check_stamps, read_all
from keras_wm.claims.facts import ClaimedLayer
from keras_wm.claims.layers import claimed_kernels
from keras_wm.claims.model_digest import weight_digest
from keras_wm.errors import ClaimError, LayerNotFoundError
from keras_wm.files import Kernel, Limits, ModelFile, ModelSource, Sandbox
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.search import search, search_sets
from keras_wm.verification.search_result import SearchResult, best_of

# The day, or the time, at which a model first appeared.
Published: TypeAlias = date | str

# The choice of the layers that a claim names. Only the claim itself fixes it.
CLAIMED_LAYERS = "claimed layers"


@dataclass(frozen=True)
class Control:
    """A model that was public before the claim, such as a public ancestor.

    Attributes:
        source: Path or URL of the model file, or the name of the model in memory.
        found: Whether the same test finds the mark in it.
    """

    source: str
    found: bool


@dataclass(frozen=True)
class ClaimEvidence:
    """A claim, and whether it counts against a disputed model.

    Attributes:
        claim: The `Claim`.
        published: Time at which the disputed model, and everything which it descends
            from, first appeared; `None` if unknown.
        dating: Date of the claim, or `None` if it is not dated.
        fixed: Names of the free choices that the claim fixes, if it counts.
        recipients: Number of recipients in whose place the key's recipient could have
            been chosen; 1 for the owner's key.
        controls: The controls that were tested.
        problem: Reason why the claim does not count, or an empty string.
    """

    claim: Claim
    published: datetime | None
    dating: Dating | None
    fixed: frozenset[str] = frozenset()
    recipients: int = 1
    controls: tuple[Control, ...] = ()
    problem: str = ""

    def with_recipients(self, key: WatermarkKey, names: Sequence[str]) -> ClaimEvidence:
        """Returns the evidence if the claim was made for a list of recipients."""
        if self.problem:
            return self
        try:
            self.claim.check_recipients(key, names)
        except ClaimError as error:
            return replace(self, problem=str(error))
        return replace(self, fixed=self.fixed | {"recipient"})

    def covers(self, choices: Collection[str]) -> bool:
        """Returns whether the claim counts and fixes some free choices."""
        return not self.problem and self.fixed.issuperset(choices)

    def with_controls(self, controls: Sequence[Control]) -> ClaimEvidence:
        """Returns the evidence with the results of the controls."""
        found = [control.source for control in controls if control.found]
        problem = self.problem
        if found and not problem:
            problem = (
                f"the mark was also found in {', '.join(found)}, which existed before"
            )
        return replace(self, controls=tuple(controls), problem=problem)

    def to_dict(self) -> dict[str, Any]:
        """Returns the facts as plain Python values."""
        return {
            "digest": self.claim.digest,
            "dated": self.dating.date.isoformat() if self.dating else None,
            "authority": self.dating.authority if self.dating else None,
            "published": self.published.isoformat() if self.published else None,
            "controls": [vars(control) for control in self.controls],
            "fixed": sorted(self.fixed - {CLAIMED_LAYERS}),
            "problem": self.problem,
        }

    def __str__(self) -> str:
        """The digest and the date, and why the claim does not count, on one line."""
        text = self.claim.digest
        if self.dating is not None:
            text += f", dated {self.dating.date:%Y-%m-%d} by {self.dating.authority}"
        if self.problem:
            return f"{text}; it does not count: {self.problem}"
        count = len(self.controls)
        controls = f"{count} {'control' if count == 1 else 'controls'} without the mark"
        if not self.controls:
            controls = (
                "no control: if the model descends from one that was public before the "
                "claim, this finding needs it as a control"
            )
        return f"{text}, before the model of {self.published:%Y-%m-%d}; {controls}"


def examine_claim(
    claim: Claim | str | os.PathLike[str],
    key: WatermarkKey,
    published: Published | None,
    tsa_certificates: Certificates | None,
    sources: Mapping[str, ModelSource | None],
    limits: Limits,
    sandbox: bool | Sandbox,
) -> ClaimEvidence:
    """Determines whether a claim counts, before controls are tested.

    Args:
        claim: The claim, or the path of its file.
        key: The key that is looked for.
        published: When the disputed model first appeared.
        tsa_certificates: Root certificates of the authorities that the verifier trusts.
        sources: The owner's models that tests use, by the names of the choices.
        limits: Limits on the resources that reading them can use.
        sandbox: Whether to read them in a child process, or the `Sandbox`.

    Raises:
        ClaimError: If the file is not a claim, or the certificates cannot be read.
        ImportError: If the package rfc3161-client is not installed.
        ValueError: If `published` is not a date.
    """
    if not isinstance(claim, Claim):
        claim = Claim.load(claim)
    appeared = _as_time(published)
    if tsa_certificates is not None:
        # The verifier's own mistake is an error, and no problem of the claim.
        read_all(tsa_certificates)
    dating = None
    try:
        claim.check_key(key)
        if tsa_certificates is None:
            raise ClaimError(
                "no root certificate of a time-stamping authority was passed as "
                "tsa_certificates"
            )
        dating = check_stamps(claim, tsa_certificates)
        if appeared is None:
            raise ClaimError("the day on which the model appeared was not passed")
        if dating.date >= appeared:
            raise ClaimError(
                f"it was dated on {dating.date:%Y-%m-%d %H:%M} UTC, and the model "
                f"appeared on {appeared:%Y-%m-%d %H:%M} UTC"
            )
    except ClaimError as error:
        return ClaimEvidence(claim, appeared, dating, problem=str(error))
    named = {digest.weights for digest in (claim.model, claim.checkpoint) if digest}
    fixed = {"arrays", "seed", CLAIMED_LAYERS}
    fixed |= {
        name
        for name, model in sources.items()
        if model is not None and weight_digest(model, limits, sandbox) in named
    }
    recipients = 1
    if key.recipient and claim.recipients is not None:
        # The key has a proof that it is in the list, which was checked.
        fixed.add("recipient")
        recipients = claim.recipients.number
    return ClaimEvidence(claim, appeared, dating, frozenset(fixed), recipients)


def search_claimed(
    suspect: ModelFile, key: WatermarkKey, claim: Claim, limits: Limits
) -> SearchResult:
    """Tests the layers that a claim names, in their slots and as it says.

    If a file has no layer of a name, all kernels of its shape are tested and counted.

    Args:
        suspect: The open model.
        key: The claimed key.
        claim: The claim.
        limits: Limits on the work of the search.

    Raises:
        ModelFileError: If a kernel cannot be read.
        UnsafeFileError: If the search would take too long.
    """
    marks = [
        (key.in_slot(layer.slot), _kernels_of(suspect, layer, key))
        for layer in claim.layers
        # An opened key has only one slot.
        if not key.opened or layer.slot == key.slot
    ]
    arrays = [{kernel.path for kernel in kernels} for _, kernels in marks]
    if claim.jointly and not key.opened and all(len(paths) == 1 for paths in arrays):
        sets = [[(kernel, member) for kernel in kernels] for member, kernels in marks]
        result, _ = search_sets(sets, limits)
    else:
        result = best_of(
            [
                *(search(kernels, [member], limits)[0] for member, kernels in marks),
                SearchResult(),
            ]
        )
    choices = frozenset({CLAIMED_LAYERS})
    return replace(result, name="claimed layers", choices=choices)


def _kernels_of(
    suspect: ModelFile, layer: ClaimedLayer, key: WatermarkKey
) -> list[Kernel]:
    """Returns the kernels that can be that of a claimed layer."""
    try:
        kernels = claimed_kernels(suspect, layer)
    except LayerNotFoundError:
        kernels = []
    if not kernels:
        kernels = [kernel for kernel in suspect.kernels if kernel.shape == layer.shape]
    return [kernel for kernel in kernels if key.fits(kernel.shape)]


def _as_time(published: Published | None) -> datetime | None:
    """Returns a time with a time zone. That of a day is its start in UTC.

    Raises:
        ValueError: If it is not a date.
    """
    value = published
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if value is None and published is None:
        return None
    if not isinstance(value, date):
        raise ValueError(
            "Expected the day on which the model appeared, such as '2026-03-31'. "
            f"Received: published={published!r}"
        )
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    return value if value.tzinfo else value.replace(tzinfo=UTC)
