"""compare: which of two marks in one model was embedded first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import log10
from typing import TYPE_CHECKING, Any

from keras_wm.errors import AlignmentError
from keras_wm.files import DEFAULT_LIMITS, Limits, ModelSource, Sandbox, open_model
from keras_wm.scheme.detection import format_p
from keras_wm.scheme.key import WatermarkKey, check_key
from keras_wm.verification.report import TextReport
from keras_wm.verification.result import Verification
from keras_wm.verification.search import checked_slots, keys_in_slots, search
from keras_wm.verification.standing import MARKED
from keras_wm.verification.verification import check_no_claim, verify

if TYPE_CHECKING:
    from keras_wm.alignment.relatedness import Relatedness
    from keras_wm.claims.claim import Claim
    from keras_wm.claims.dating import Certificates
    from keras_wm.verification.claimed import Published


@dataclass(frozen=True)
class Party:
    """A party to a dispute: its key, and its own model.

    Attributes:
        key: The party's `WatermarkKey`.
        original: The model that, according to the party, the disputed model was made
            from: a model file or a Keras model, as for `verify`.
        claim: The party's `Claim` for that model, or the path of its file, or `None`.
    """

    key: WatermarkKey
    original: ModelSource
    claim: Claim | str | os.PathLike[str] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(TextReport):
    """Report of `compare`: two parties that claim one model.

    It prints as text, and as a table in a notebook.

    Attributes:
        disputed: The `Verification` of each key in the disputed model.
        originals: The `Verification` of each key in each party's own model:
            `originals[i][j]` is key j in the original of party i.
        related: The `Relatedness` of each party's own model to the disputed model.
        dates: The date of each party's claim for its own model; `None` without a claim
            that counts.
    """

    disputed: tuple[Verification, Verification]
    originals: tuple[
        tuple[Verification, Verification], tuple[Verification, Verification]
    ]
    related: tuple[Relatedness, Relatedness]
    dates: tuple[datetime | None, datetime | None] = (None, None)

    @property
    def names(self) -> tuple[str, str]:
        """The names of the parties: the owners that their keys name.

        If both keys name the same owner, the names contain the keys' commitments.
        """
        first, second = (verification.owner for verification in self.disputed)
        if first != second:
            return first, second
        commitments = [verification.commitment[:8] for verification in self.disputed]
        return f"{first} ({commitments[0]})", f"{second} ({commitments[1]})"

    @property
    def first(self) -> str | None:
        """The party whose mark was embedded first; `None` if that is not shown.

        With two claims that count, it is the party whose claim is dated earlier.
        Otherwise it is the party whose own model lacks the other's mark, if the other
        party's own model has both marks.
        """
        if self.refused:
            return None
        if self._is_dated:
            earlier, later = self.dates
            if earlier == later:
                return None
            return self.names[0 if earlier < later else 1]  # type: ignore[operator]
        if self._has_both(0) != self._has_both(1):
            return self.names[0 if self._has_both(1) else 1]
        return None

    @property
    def _is_dated(self) -> bool:
        return None not in self.dates

    def _has_both(self, party: int) -> bool:
        """Returns whether a party's own model has the other's mark, too."""
        return self.originals[party][1 - party].marked

    @property
    def refused(self) -> list[str]:
        """The reasons why a party's evidence is refused as an argument."""
        reasons = []
        for party, name in enumerate(self.names):
            disputed, own = self.disputed[party], self.originals[party][party]
            if not disputed.marked:
                reasons.append(f"{name}'s mark is not in the disputed model")
            elif not disputed.meets("claimed"):
                reasons.append(
                    f"the finding of {name}'s mark in the disputed model is not "
                    f"evidence ({disputed.verdict}, {disputed.standing})"
                )
            if not own.marked:
                reasons.append(f"{name}'s mark is not in {name}'s own model")
            if not self.related[party].is_related:
                reasons.append(
                    f"{name}'s own model is not related to the disputed model "
                    f"(relatedness {self.related[party]})"
                )
        return reasons

    @property
    def reason(self) -> str:
        """The reason for the answer, in one sentence."""
        if self.refused:
            text = "; ".join(self.refused)
            return f"{text[0].upper()}{text[1:]}."
        if self._is_dated:
            if self.first is None:
                return "Both claims have the same date."
            second = self.names[1 - self.names.index(self.first)]
            first_date, second_date = sorted(date for date in self.dates if date)
            return (
                f"{self.first}'s claim is dated {first_date:%Y-%m-%d %H:%M} UTC, "
                f"{second}'s {second_date:%Y-%m-%d %H:%M} UTC, and the own models of "
                "both are related to the disputed model."
            )
        if self.first is not None:
            second = self.names[1 - self.names.index(self.first)]
            return (
                f"{second}'s own model has {self.first}'s mark, and {self.first}'s has "
                f"none of {second}'s: {second} began with a model that {self.first} "
                "had marked."
            )
        if self._has_both(0):
            return "Each party's own model has the other's mark."
        return (
            "Neither party's own model has the other's mark: they cannot both be what "
            "the disputed model was made from."
        )

    @property
    def notes(self) -> list[str]:
        """Facts that a reader needs to judge the answer."""
        claims = [
            f"{name}'s claim: {verification.claim}"
            for name, verification in zip(self.names, self.disputed, strict=True)
            if verification.claim is not None
        ]
        note = "This shows the order of the two marks, not who made the weights."
        if not self._is_dated:
            note += " Two dated claims would be stronger evidence."
        return [*claims, note]

    def meets(self, required: str | None) -> bool:
        """Returns whether the order is shown by findings of a required standing.

        Args:
            required: A standing, as for `Verification.meets`, or `None` for any.
        """
        return self.first is not None and all(
            finding.meets(required) for finding in self.disputed
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, which JSON can hold."""
        return {
            "first": self.first,
            "reason": self.reason,
            "refused": self.refused,
            "dates": [date and date.isoformat() for date in self.dates],
            "relatedness": [
                {"figure": related.figure, "cosines": dict(related.cosines)}
                for related in self.related
            ],
            "disputed": [verification.to_dict() for verification in self.disputed],
            "originals": [
                [verification.to_dict() for verification in pair]
                for pair in self.originals
            ],
            "notes": self.notes,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Returns the report as pairs of a name and a value."""
        models = ["disputed model", *(f"{name}'s own model" for name in self.names)]
        verdicts = list(map(self._verdicts, (self.disputed, *self.originals)))
        for party, related in enumerate(self.related):
            verdicts[1 + party] += f"; relatedness {related}"
        return [
            ("first", self.first or "NOT SHOWN"),
            ("because", self.reason),
            *zip(models, verdicts, strict=True),
            *(("note", note) for note in self.notes),
        ]

    def _verdicts(self, pair: Sequence[Verification]) -> str:
        """Returns the verdicts on both keys in one model, on one line."""
        return "; ".join(
            f"{name} {verification.verdict}"
            + (f", {verification.standing}" if verification.marked else "")
            + f" (p {format_p(verification.log10_p)})"
            for name, verification in zip(self.names, pair, strict=True)
        )


def compare(
    disputed: ModelSource,
    parties: Sequence[Party],
    layer: str | Sequence[str] | None = None,
    alpha: float = MARKED,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
    slots: int | None = None,
    published: Published | None = None,
    controls: Sequence[ModelSource] = (),
    tsa_certificates: Certificates | None = None,
) -> Comparison:
    """Determines which of two marks in a model was embedded first.

    A thief can add a second mark to a stolen model and present a key for it. If both
    parties have a `Claim` that counts, the earlier date decides. Otherwise each party
    presents the model that the disputed model was made from: only the owner has one
    without the second mark, because every model of the thief carries the first mark.

    Evidence of a party is refused if its finding in the disputed model does not stand
    (it is private, or has a p-value above 2**-64 and no date), or if its own model is
    not related to the disputed model. Then nothing is shown.

    Args:
        disputed: The model that both parties claim: a model file or a Keras model, as
            for `verify`.
        parties: The two `Party` objects.
        layer: Name of the layer to search, or names of several layers that are tested
            jointly. `None` searches every kernel. Defaults to `None`.
        alpha: Threshold of the corrected p-value below which a model counts as
            marked. Defaults to 1e-9.
        limits: `Limits` on the resources that reading each file can use. `None` uses
            the default limits. Defaults to `None`.
        sandbox: Whether to read files in a child process, or the `Sandbox` to read
            them in. Defaults to `False`.
        slots: Number of slots of both keys, as for `verify`. Defaults to `None`.
        published: Day on which the disputed model, and everything which it descends
            from, first appeared, as for `verify`. Claims must be older.
        controls: Models that were public before the claims, as for `verify`.
        tsa_certificates: Root certificates of the time-stamping authorities that you
            trust, as for `verify`.

    Returns:
        A `Comparison`.

    Raises:
        ModelFileError: If a file cannot be read or is refused as unsafe.
        LayerNotFoundError: If a model has no layer of this name.
        ClaimError: If the file of a claim is not a claim, or `tsa_certificates`
            cannot be read.
        TypeError: If a model or a key has another type.
        ValueError: If there are not two parties with different keys, or a named layer
            cannot hold a message.

    Example:

    ```python
    ours = keras_wm.Party(key, "ours.keras")
    theirs = keras_wm.Party(their_key, "theirs.keras")
    print(keras_wm.compare("disputed.keras", [ours, theirs]))
    ```
    """
    first, second = _two(parties)
    if first.claim is None and second.claim is None:
        check_no_claim(published, controls, tsa_certificates)
    limits = limits or DEFAULT_LIMITS
    keys = [first.key, second.key]

    def verify_one(model: ModelSource, party: Party, **dating: Any) -> Verification:
        key = party.key
        return verify(model, key, layer, alpha, limits, sandbox, slots=slots, **dating)

    def dating_of(party: Party) -> dict[str, Any]:
        if party.claim is None:
            return {}
        return {
            "claim": party.claim,
            "published": published,
            "controls": controls,
            "tsa_certificates": tsa_certificates,
        }

    findings = [
        verify_one(disputed, party, **dating_of(party)) for party in (first, second)
    ]
    originals = [
        (verify_one(party.original, first), verify_one(party.original, second))
        for party in (first, second)
    ]
    in_slots = checked_slots(slots, keys)
    related = [
        _related(party.original, disputed, keys, in_slots, limits, sandbox)
        for party in (first, second)
    ]
    dates = [
        _date_of(party, finding, limits, sandbox)
        for party, finding in zip((first, second), findings, strict=True)
    ]
    return Comparison(
        (findings[0], findings[1]),
        (originals[0], originals[1]),
        (related[0], related[1]),
        (dates[0], dates[1]),
    )


def _two(parties: Sequence[Party]) -> tuple[Party, Party]:
    """Returns the parties; raises an error unless they are two with different keys."""
    if len(parties) != 2:
        raise ValueError(
            "Expected two parties, each a key and its owner's own model. "
            f"Received: {len(parties)}"
        )
    first, second = parties
    for party in parties:
        check_key(party.key)
    if first.key.commitment == second.key.commitment:
        raise ValueError(f"Expected two keys. Received {first.key!r} twice.")
    return first, second


def _related(
    original: ModelSource,
    disputed: ModelSource,
    keys: Sequence[WatermarkKey],
    slots: int,
    limits: Limits,
    sandbox: bool | Sandbox,
) -> Relatedness:
    """Returns how alike the unmarked kernels of two models are."""
    # Imported late, like all of the alignment.
    from keras_wm.alignment.reference import read_reference
    from keras_wm.alignment.relatedness import Relatedness, relatedness

    with open_model(original, limits, sandbox) as own:
        in_slots = [member for key in keys for member in keys_in_slots(key, slots)]
        marked = [
            kernel.name
            for kernel in own.kernels
            if any(
                result.log10_p < log10(MARKED)
                for result in search([kernel], in_slots, limits)
            )
        ]
        try:
            reference = read_reference(own)
        except AlignmentError as error:
            return Relatedness({}, str(error))
    with open_model(disputed, limits, sandbox) as suspect:
        return relatedness(reference, suspect, marked)


def _date_of(
    party: Party, finding: Verification, limits: Limits, sandbox: bool | Sandbox
) -> datetime | None:
    """Returns the date of a party's claim if it counts and names the party's model."""
    evidence = finding.claim
    if evidence is None or evidence.problem or evidence.dating is None:
        return None
    from keras_wm.claims.model_digest import weight_digest

    own = weight_digest(party.original, limits, sandbox)
    return evidence.dating.date if own == evidence.claim.model.weights else None
