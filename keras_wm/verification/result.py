"""Verification: the report of a search for one key in one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_wm.scheme.detection import Detection, format_p
from keras_wm.utils.arrays import Floats
from keras_wm.verification.report import TextReport
from keras_wm.verification.search_result import SearchResult
from keras_wm.verification.standing import (
    PROVEN,
    UNUSED_VERDICT,
    Standing,
    describe,
    meets,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_wm.verification.claimed import ClaimEvidence


@dataclass(frozen=True, eq=False, repr=False)
class Verification(TextReport):
    """Report of `verify`: whether a model carries the mark of a key.

    It prints as text, and as a table in a notebook.

    Attributes:
        source: Path or URL of the model file, or the name of the model in memory.
        owner: Owner that the key names.
        commitment: The key's commitment.
        certified: Whether the key is derived from a secret. The mark of a key that
            was given as arrays is not evidence by itself.
        alpha: Threshold of the corrected p-value below which the model is marked.
        finding: The `SearchResult` that the verdict rests on.
        attempts: The results of all attempts, such as `"unaligned"` and `"aligned"`.
        recipient: Name of the recipient whose key it is; empty for the owner's key.
        notes: Facts that a reader needs to judge the result.
        slots: Number of slots in which each kernel was tested.
        claim: The claim, and whether it counts; `None` if none was given.
    """

    source: str
    owner: str
    commitment: str
    certified: bool
    alpha: float
    finding: SearchResult
    attempts: Sequence[SearchResult]
    recipient: str = ""
    notes: Sequence[str] = ()
    slots: int = 1
    claim: ClaimEvidence | None = None

    @property
    def detection(self) -> Detection | None:
        """The `Detection` in the kernel of the finding, or in its kernels together.

        `None` if no kernel can hold the message.
        """
        return self.finding.detection

    @property
    def layer(self) -> str | None:
        """Name of the kernel with the smallest p-value, or of all kernels together.

        `None` if no kernel can hold the message.
        """
        return self.finding.layer

    @property
    def slot(self) -> int:
        """Number of the key's slot in which the kernel was read."""
        return self.finding.slot

    @property
    def parts(self) -> Mapping[str, Detection]:
        """The `Detection` in each of the kernels that were tested together."""
        return self.finding.parts

    @property
    def tried(self) -> int:
        """Number of tests that were made."""
        return sum(attempt.tried for attempt in self.attempts)

    @property
    def skipped(self) -> int:
        """Number of kernels that cannot hold the message."""
        return self.finding.skipped

    @property
    def standing(self) -> Standing:
        """The standing of the finding: independent, claimed or private."""
        return self.finding.standing

    @property
    def bits(self) -> int:
        """Number of bits T of the message; 0 if no kernel can hold it."""
        return self.detection.bits if self.detection else 0

    @property
    def matches(self) -> int:
        """Number of bits that are read correctly."""
        return self.detection.matches if self.detection else 0

    @property
    def ber(self) -> float:
        """Bit error rate; NaN if no kernel can hold the message."""
        return self.detection.ber if self.detection else float("nan")

    @property
    def z(self) -> Floats:
        """Scores z of the bits, shape `(T,)`."""
        return self.detection.z if self.detection else np.empty(0)

    @property
    def log10_p_hard(self) -> float:
        """log10 of the hard p-value of one test, from the number of correct bits."""
        return self.detection.log10_p_hard if self.detection else 0.0

    @property
    def log10_p_soft(self) -> float | None:
        """log10 of the soft p-value of one test, from the sum of the scores.

        `None` if it is not exact for the key's projection.
        """
        return self.detection.log10_p_soft if self.detection else None

    @property
    def log10_p(self) -> float:
        """log10 of the p-value of the verdict, corrected for all tests."""
        return self.finding.log10_p_corrected

    @property
    def marked(self) -> bool:
        """True if the model carries the mark: the corrected p-value is below alpha."""
        return self.log10_p < log10(self.alpha)

    @property
    def unused(self) -> SearchResult | None:
        """The mark in weights that the model does not use, or `None`.

        It does not show that the model was marked.
        """
        unused = [attempt.unused for attempt in self.attempts if attempt.unused]
        best = min(unused, key=lambda result: result.log10_p_corrected, default=None)
        is_found = best is not None and best.log10_p_corrected < log10(self.alpha)
        return best if is_found else None

    @property
    def most_significant(self) -> SearchResult:
        """The attempt with the smallest corrected p-value, whatever its standing."""
        return min(self.attempts, key=lambda attempt: attempt.log10_p_corrected)

    @property
    def verdict(self) -> str:
        """`"proven"` (corrected p below 2**-64), `"marked"`, or `"not found"`.

        `"unused"` if the mark was found in weights only that the model does not use.
        """
        if self.marked:
            return "proven" if self.log10_p < log10(PROVEN) else "marked"
        return "unused" if self.unused else "not found"

    def meets(self, required: str | None) -> bool:
        """Returns whether the mark was found, with a required standing.

        Args:
            required: `"independent"` (a corrected p-value below 2**-64), `"claimed"`
                (below 1e-9, or independent), or `None` for any standing.
        """
        return self.marked and any(
            meets(required, attempt.standing, attempt.log10_p_corrected)
            for attempt in self.attempts
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, which JSON can hold."""
        figures = self.detection.to_dict() if self.detection else {}
        parts = {name: part.to_dict() for name, part in self.parts.items()}
        attempts = {attempt.name: attempt.to_dict() for attempt in self.attempts}
        names = ["verdict", "standing", "source", "owner"]
        names += ["recipient"] if self.recipient else []
        names += ["commitment", "marked", "log10_p", "alpha", "certified"]
        names += ["layer", "slot"]
        return {
            **{name: getattr(self, name) for name in names},
            "kernels_tried": self.tried,
            "kernels_skipped": self.skipped,
            "tests_counted": self.finding.counted,
            "slots_tried": self.slots,
            **figures,
            **({"parts": parts} if parts else {}),
            **({"attempts": attempts} if len(attempts) > 1 else {}),
            **({"claim": self.claim.to_dict()} if self.claim else {}),
            **({"unused": self.unused.to_dict()} if self.unused else {}),
            "notes": list(self.notes),
        }

    def plot(self) -> Figure:
        """Draws a histogram of the scores beside those of an unmarked kernel.

        Returns:
            A Matplotlib `Figure`.
        """
        from keras_wm.plots import plot_scores

        title = f"{self.verdict}: {self.matches} of {self.bits} bits in {self.layer}"
        return plot_scores({self.source: self.z}, title)

    def rows(self) -> list[tuple[str, str]]:
        """Returns the report as pairs of a name and a value."""
        several = len(self.attempts) > 1
        return [
            ("verdict", self._verdict()),
            ("p-value", f"{format_p(self.log10_p)}, {self._tests_counted()}"),
            ("model", self.source),
            ("owner", self.owner),
            *([("recipient", self.recipient)] if self.recipient else []),
            ("commitment", self.commitment),
            *([("claim", str(self.claim))] if self.claim else []),
            *self._detection_rows(),
            *((f"in {name}", _part_figures(part)) for name, part in self.parts.items()),
            *((attempt.name, str(attempt)) for attempt in self.attempts if several),
            *([("not used", _unused_figures(self.unused))] if self.unused else []),
            *(("note", note) for note in self.notes),
        ]

    def _verdict(self) -> str:
        """Returns the verdict and its standing, for the first line of the report."""
        if not self.marked:
            return (UNUSED_VERDICT if self.unused else self.verdict).upper()
        standing = describe(self.standing, self.log10_p, self.finding.choices)
        return f"{self.verdict.upper()}, {standing}"

    def _tests_counted(self) -> str:
        """Returns how many tests the p-value counts, as text."""
        count = self.finding.counted
        slots = f" in {self.slots:,} slots" if self.slots > 1 else ""
        return f"counting {count:,} {'test' if count == 1 else 'tests'}{slots}"

    def _detection_rows(self) -> list[tuple[str, str]]:
        detection = self.detection
        if detection is None:
            return []
        errors = detection.bits - detection.matches
        return [
            ("kernels" if self.parts else "kernel", str(self.layer)),
            *([("slot", str(self.slot))] if self.slot else []),
            ("bit errors", f"{errors} of {detection.bits}"),
            ("bit error rate", f"{detection.ber:.4g}"),
            ("score z", f"mean {detection.z_mean:.2f}, smallest {detection.z_min:.2f}"),
            *self._p_rows(detection),
        ]

    def _p_rows(self, detection: Detection) -> list[tuple[str, str]]:
        """Returns the p-values of one test; none for kernels that were chosen."""
        if self.finding.log10_product is not None:
            return []
        soft = detection.log10_p_soft
        return [
            ("p of the bits", format_p(detection.log10_p_hard)),
            ("p of the scores", "not exact here" if soft is None else format_p(soft)),
        ]


def _unused_figures(result: SearchResult) -> str:
    return f"{result}; {result.unused_note}"


def _part_figures(part: Detection) -> str:
    return f"{part.bits - part.matches} bit errors, p {format_p(part.log10_p)}"
