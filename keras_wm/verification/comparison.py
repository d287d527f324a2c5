"""Which of two marks in one model was there first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_wm.files import DEFAULT_LIMITS, Limits, Sandbox
from keras_wm.scheme.detection import format_p
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.verdict import MARKED, Verification
from keras_wm.verification.verification import check_key, verify


@dataclass(frozen=True)
class Claim:
    """What a party to a dispute shows.

    Attributes:
        key: The party's key.
        original: The party's own model: a file, or a model in memory.
    """

    key: WatermarkKey
    original: Any


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two claims to one model.

    Attributes:
        disputed: What the model that is fought over shows of each key.
        originals: What each party's own model shows of each key:
            `originals[i][j]` is key j in the original of party i.
    """

    disputed: tuple[Verification, Verification]
    originals: tuple[
        tuple[Verification, Verification], tuple[Verification, Verification]
    ]

    @property
    def names(self) -> tuple[str, str]:
        """What to call the parties: the owners that the keys name."""
        first, second = self.disputed
        if first.owner != second.owner:
            return first.owner, second.owner
        return tuple(  # type: ignore[return-value]
            f"{one.owner} ({one.commitment[:8]})" for one in self.disputed
        )

    @property
    def first(self) -> str | None:
        """Whose mark was there first; `None` if that is not shown.

        The party whose own model is without the other's mark, while the other's own
        model has both.
        """
        if not self._missing and self._has_both(0) != self._has_both(1):
            return self.names[0 if self._has_both(1) else 1]
        return None

    def _has_both(self, party: int) -> bool:
        """Whether a party's own model has the other's mark too."""
        return self.originals[party][1 - party].marked

    @property
    def _missing(self) -> list[str]:
        """The marks that would have to be there, and are not."""
        return [
            f"{name}'s mark is not in {where}"
            for party, name in enumerate(self.names)
            for where, found in (
                ("the disputed model", self.disputed[party]),
                (f"{name}'s own model", self.originals[party][party]),
            )
            if not found.marked
        ]

    @property
    def reason(self) -> str:
        """Why the answer is what it is."""
        if self._missing:
            return f"{'; '.join(self._missing)}."
        if self.first is not None:
            one, other = self.names if self.first == self.names[0] else self.names[::-1]
            return (
                f"{other}'s own model has {one}'s mark, and {one}'s has none of "
                f"{other}'s: {other} began with a model that {one} had marked."
            )
        if self._has_both(0):
            return "Each party's own model has the other's mark."
        return (
            "Neither party's own model has the other's mark: they cannot both be what "
            "the disputed model was made from."
        )

    @property
    def notes(self) -> list[str]:
        """What else a reader of the answer has to know."""
        notes = [
            f"{name}'s key was given as arrays and proves nothing by itself."
            for name, found in zip(self.names, self.disputed, strict=True)
            if not found.certified
        ]
        return [
            *notes,
            "This tells the order of two marks, not who made the weights. Commitments "
            "that were published with a date tell more.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain Python values that JSON can hold."""
        return {
            "first": self.first,
            "reason": self.reason,
            "disputed": [one.to_dict() for one in self.disputed],
            "originals": [
                [found.to_dict() for found in pair] for pair in self.originals
            ],
            "notes": self.notes,
        }

    def rows(self) -> list[tuple[str, str]]:
        """The report, as pairs of a name and a value."""
        models = [
            ("disputed model", self.disputed),
            *(
                (f"{name}'s own model", found)
                for name, found in zip(self.names, self.originals, strict=True)
            ),
        ]
        return [
            ("first", self.first or "NOT SHOWN"),
            ("because", self.reason),
            *((where, self._found(found)) for where, found in models),
            *(("note", note) for note in self.notes),
        ]

    def _found(self, found: Sequence[Verification]) -> str:
        return "; ".join(
            f"{name} {one.verdict} (p {format_p(one.log10_p)})"
            for name, one in zip(self.names, found, strict=True)
        )

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:>{width}}  {value}" for name, value in self.rows())


def compare(
    disputed: Any,
    claims: Sequence[Claim],
    layer: str | Sequence[str] | None = None,
    alpha: float = MARKED,
    limits: Limits = DEFAULT_LIMITS,
    sandbox: bool | Sandbox = False,
) -> Comparison:
    """Tells which of two marks in a model was there first.

    Whoever steals a marked model can add a mark, and then show a key too. But the
    model without that second mark is the owner's alone to show, while every model
    that the thief has holds the first one. Each party hands over a key and a model
    that is said to be the one the disputed model was made from.

    Args:
        disputed: The model that both claim: as for `verify`, as are all others.
        claims: Two `Claim`s.
        layer: The layer to look in, or several that are read as one. `None`, the
            default, tries every kernel.
        alpha: A mark is there if the corrected p-value is below this. Defaults
            to 1e-9.
        limits: What a file may ask of this machine. Defaults to `Limits()`.
        sandbox: Whether files are read in a process of their own. Defaults to
            `False`.

    Returns:
        A `Comparison`.

    Raises:
        ModelFileError: If a file cannot be read or is refused.
        ValueError: If there are not two claims with different keys.

    Example:

    ```python
    ours = keras_wm.Claim(key, "ours.keras")
    theirs = keras_wm.Claim(their_key, "theirs.keras")
    print(keras_wm.compare("disputed.keras", [ours, theirs]))
    ```
    """
    first, second = _checked(claims)
    options: dict[str, Any]
    options = {"layer": layer, "alpha": alpha, "limits": limits, "sandbox": sandbox}

    def both(model: Any) -> tuple[Verification, Verification]:
        return (
            verify(model, first.key, **options),
            verify(model, second.key, **options),
        )

    return Comparison(both(disputed), (both(first.original), both(second.original)))


def _checked(claims: Sequence[Claim]) -> tuple[Claim, Claim]:
    if len(claims) != 2:
        raise ValueError(
            "Expected two claims, each a key and its owner's own model. "
            f"Received: {len(claims)}"
        )
    first, second = claims
    for claim in claims:
        check_key(claim.key)
    if first.key == second.key:
        raise ValueError(f"Expected two keys. Received {first.key!r} twice.")
    return first, second
