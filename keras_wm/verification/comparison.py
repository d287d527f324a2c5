"""compare: which of two marks in one model was embedded first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_wm.files import Limits, ModelSource, Sandbox
from keras_wm.scheme.detection import format_p
from keras_wm.scheme.key import WatermarkKey, check_key
from keras_wm.verification.report import TextReport
from keras_wm.verification.result import Verification
from keras_wm.verification.standing import MARKED
from keras_wm.verification.verification import verify


@dataclass(frozen=True)
class Party:
    """A party to a dispute: its key, and its own model.

    Attributes:
        key: The party's `WatermarkKey`.
        original: The model that, according to the party, the disputed model was made
            from: a model file or a Keras model, as for `verify`.
    """

    key: WatermarkKey
    original: ModelSource


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(TextReport):
    """Report of `compare`: two parties that claim one model.

    It prints as text, and as a table in a notebook.

    Attributes:
        disputed: The `Verification` of each key in the disputed model.
        originals: The `Verification` of each key in each party's own model:
            `originals[i][j]` is key j in the original of party i.
    """

    disputed: tuple[Verification, Verification]
    originals: tuple[
        tuple[Verification, Verification], tuple[Verification, Verification]
    ]

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

        It is the party whose own model lacks the other's mark, if the other party's
        own model has both marks.
        """
        if not self._missing and self._has_both(0) != self._has_both(1):
            return self.names[0 if self._has_both(1) else 1]
        return None

    def _has_both(self, party: int) -> bool:
        """Returns whether a party's own model has the other's mark, too."""
        return self.originals[party][1 - party].marked

    @property
    def _missing(self) -> list[str]:
        """Descriptions of the marks that an answer needs and that were not found."""
        return [
            f"{name}'s mark is not in {model}"
            for party, name in enumerate(self.names)
            for model, verification in (
                ("the disputed model", self.disputed[party]),
                (f"{name}'s own model", self.originals[party][party]),
            )
            if not verification.marked
        ]

    @property
    def reason(self) -> str:
        """The reason for the answer, in one sentence."""
        if self._missing:
            return f"{'; '.join(self._missing)}."
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
        notes = [
            f"{name}'s key was given as arrays and proves nothing by itself."
            for name, verification in zip(self.names, self.disputed, strict=True)
            if not verification.certified
        ]
        return [
            *notes,
            "This shows the order of the two marks, not who made the weights. "
            "Commitments that were published with a date are further evidence.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, which JSON can hold."""
        return {
            "first": self.first,
            "reason": self.reason,
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
        verdicts = map(self._verdicts, (self.disputed, *self.originals))
        return [
            ("first", self.first or "NOT SHOWN"),
            ("because", self.reason),
            *zip(models, verdicts, strict=True),
            *(("note", note) for note in self.notes),
        ]

    def _verdicts(self, pair: Sequence[Verification]) -> str:
        """Returns the verdicts on both keys in one model, on one line."""
        return "; ".join(
            f"{name} {verification.verdict} (p {format_p(verification.log10_p)})"
            for name, verification in zip(self.names, pair, strict=True)
        )


def compare(
    disputed: ModelSource,
    parties: Sequence[Party],
    layer: str | Sequence[str] | None = None,
    alpha: float = MARKED,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
    slots: int = 1,
) -> Comparison:
    """Determines which of two marks in a model was embedded first.

    A thief can add a second mark to a stolen model and present a key for it. But only
    the owner has a model without that second mark: every model that the thief has
    carries the first mark. Therefore each party presents a key, and the model that
    the disputed model was made from according to that party.

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
        slots: Number of slots of both keys, as for `verify`. Defaults to 1.

    Returns:
        A `Comparison`.

    Raises:
        ModelFileError: If a file cannot be read or is refused as unsafe.
        LayerNotFoundError: If a model has no layer of this name.
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

    def verify_both(model: ModelSource) -> tuple[Verification, Verification]:
        return (
            verify(model, first.key, layer, alpha, limits, sandbox, slots=slots),
            verify(model, second.key, layer, alpha, limits, sandbox, slots=slots),
        )

    return Comparison(
        verify_both(disputed),
        (verify_both(first.original), verify_both(second.original)),
    )
