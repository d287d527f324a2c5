"""Verification: the report of a search for one key in one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log10
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_wm.scheme.detection import Detection, corrected, format_p
from keras_wm.utils.arrays import Floats
from keras_wm.verification.report import TextReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_wm.verification.search import SearchResult

MARKED = 1e-9
PROVEN = 2.0**-64


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
        layer: Name of the kernel with the smallest p-value, or the names of all
            kernels that were tested jointly. `None` if no kernel can hold the message.
        detection: The `Detection` in that kernel, or in those kernels together.
            `None` if no kernel can hold the message.
        tried: Number of tests, one for each kernel, slot and attempt. The p-value is
            multiplied by it.
        skipped: Number of kernels that cannot hold the message.
        recipient: Name of the recipient whose copy the key marks, or an empty string.
        kernel_note: Steps from the stored arrays to the kernel, such as "int8,
            dequantized". Empty if it is stored directly.
        parts: The `Detection` in each kernel of a joint test, by the kernel's name.
        log10_arrangements: log10 of the number of arrangements of the kernel's
            filters that were compared. The p-value is multiplied by it, too.
        attempts: The `SearchResult` of each attempt, if the kernels were also aligned
            or reordered.
        notes: Facts that a reader needs to judge the result.
        slot: Number of the key's slot in which the kernel was read.
        slots: Number of slots in which each kernel was tested.
    """

    source: str
    owner: str
    commitment: str
    certified: bool
    alpha: float
    layer: str | None
    detection: Detection | None
    tried: int
    skipped: int
    recipient: str = ""
    kernel_note: str = ""
    parts: Mapping[str, Detection] = field(default_factory=dict)
    log10_arrangements: float = 0.0
    attempts: Sequence[SearchResult] = ()
    notes: Sequence[str] = ()
    slot: int = 0
    slots: int = 1

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
        if self.detection is None:
            return 0.0
        return corrected(self.detection.log10_p + self.log10_arrangements, self.tried)

    @property
    def marked(self) -> bool:
        """True if the model carries the mark: the corrected p-value is below alpha."""
        return self.log10_p < log10(self.alpha)

    @property
    def verdict(self) -> str:
        """`"proven"` (corrected p below 2**-64), `"marked"` or `"not found"`."""
        if self.marked and self.log10_p < log10(PROVEN):
            return "proven"
        return "marked" if self.marked else "not found"

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, which JSON can hold."""
        figures = self.detection.to_dict() if self.detection else {}
        parts = {name: part.to_dict() for name, part in self.parts.items()}
        attempts = {attempt.name: attempt.to_dict() for attempt in self.attempts}
        names = ["source", "owner", *(["recipient"] if self.recipient else [])]
        names += ["commitment", "verdict", "marked", "log10_p"]
        names += ["alpha", "certified", "layer", "slot"]
        return {
            **{name: getattr(self, name) for name in names},
            "kernels_tried": self.tried,
            "kernels_skipped": self.skipped,
            **figures,
            **({"parts": parts} if parts else {}),
            **({"attempts": attempts} if attempts else {}),
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
        if self.parts:
            tests = f"of {len(self.parts)} kernels together"
        else:
            several = self.attempts or self.slots > 1
            tests = f"with {self.tried} {'tries' if several else 'kernels tried'}"
        return [
            ("verdict", self.verdict.upper()),
            ("p-value", f"{format_p(self.log10_p)}, {tests}"),
            ("model", self.source),
            ("owner", self.owner),
            *([("recipient", self.recipient)] if self.recipient else []),
            ("commitment", self.commitment),
            *self._detection_rows(),
            *((f"in {name}", _part_figures(part)) for name, part in self.parts.items()),
            *((attempt.name, str(attempt)) for attempt in self.attempts),
            *(("note", note) for note in self.notes),
        ]

    def _detection_rows(self) -> list[tuple[str, str]]:
        detection = self.detection
        if detection is None:
            return []
        errors, soft = detection.bits - detection.matches, detection.log10_p_soft
        return [
            ("kernels" if self.parts else "kernel", str(self.layer)),
            *([("slot", str(self.slot))] if self.slot else []),
            ("bit errors", f"{errors} of {detection.bits}"),
            ("bit error rate", f"{detection.ber:.4g}"),
            ("score z", f"mean {detection.z_mean:.2f}, smallest {detection.z_min:.2f}"),
            ("p of the bits", format_p(detection.log10_p_hard)),
            ("p of the scores", "not exact here" if soft is None else format_p(soft)),
        ]


def _part_figures(part: Detection) -> str:
    return f"{part.bits - part.matches} bit errors, p {format_p(part.log10_p)}"
