"""What was found of a key in a model: the report that `verify` gives."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log10
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.scheme.detection import Detection, corrected, format_p

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_wm.verification.aligned_search import Look

MARKED = 1e-9
PROVEN = 2.0**-64

_UNCERTIFIED = (
    "This key was given as arrays. It proves nothing by itself unless it is known to "
    "be older than the model: a projection can be solved for."
)


@dataclass(frozen=True, eq=False)
class Verification:
    """What was found of a key in a model.

    Attributes:
        source: The file, or the name of the model.
        owner: Whom the key names.
        commitment: The key's commitment.
        layer: The kernel that carries the message best, or `None` where no
            kernel can hold it; the names of several that are read together.
        detection: The scores in that kernel, or in those together, or `None`.
        tried: How many kernels were tried, each way of looking at one by itself;
            the p-value is multiplied by it.
        skipped: How many kernels cannot hold the message.
        certified: Whether the key is derived from a secret, so that finding the
            mark is evidence by itself.
        alpha: Marked means a corrected p-value below this.
        reading: How the kernel comes from what the file stores, where it is not
            stored as it is.
        parts: The scores in each kernel by its name, where several are read together.
        recipient: Whose copy the key marks, where it is a recipient's.
        log10_arrangements: log10 of how many arrangements of the kernel's filters
            it is the best of; the p-value is multiplied by them, too.
        looks: What was found by each way of looking, where there were several.
        remarks: What kept one of them from being gone.
    """

    source: str
    owner: str
    commitment: str
    layer: str | None
    detection: Detection | None
    tried: int
    skipped: int
    certified: bool
    alpha: float
    reading: str = ""
    parts: Mapping[str, Detection] = field(default_factory=dict)
    recipient: str = ""
    log10_arrangements: float = 0.0
    looks: tuple[Look, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def bits(self) -> int:
        """T, the length of the message; 0 where no kernel can hold it."""
        return self.detection.bits if self.detection else 0

    @property
    def matches(self) -> int:
        """How many bits are read right."""
        return self.detection.matches if self.detection else 0

    @property
    def ber(self) -> float:
        """The bit error rate; NaN where no kernel can hold the message."""
        return self.detection.ber if self.detection else float("nan")

    @property
    def z(self) -> NDArray[np.float64]:
        """The scores, shape `(T,)`."""
        return self.detection.z if self.detection else np.empty(0)

    @property
    def log10_p_hard(self) -> float:
        """log10 of the binomial p-value of the matches, for one try."""
        return self.detection.log10_p_hard if self.detection else 0.0

    @property
    def log10_p_soft(self) -> float | None:
        """log10 of the p-value of the sum of scores, for one try, where exact."""
        return self.detection.log10_p_soft if self.detection else None

    @property
    def log10_p(self) -> float:
        """log10 of the p-value of the verdict, corrected for all that was tried."""
        if self.detection is None:
            return 0.0
        return corrected(self.detection.log10_p + self.log10_arrangements, self.tried)

    @property
    def marked(self) -> bool:
        """Whether the mark is there: `log10_p` is below that of `alpha`."""
        return self.log10_p < log10(self.alpha)

    @property
    def verdict(self) -> str:
        """`"proven"` (p below 2**-64), `"marked"` or `"not found"`."""
        if self.marked and self.log10_p < log10(PROVEN):
            return "proven"
        return "marked" if self.marked else "not found"

    @property
    def notes(self) -> list[str]:
        """What else a reader of the verdict has to know."""
        notes = [] if self.certified else [_UNCERTIFIED]
        if self.detection is None:
            notes.append(f"None of the {self.skipped} kernels can hold the message.")
        elif self.detection.problem:
            notes.append(f"The kernel is no evidence: {self.detection.problem}.")
        if self.reading:
            notes.append(f"The kernel as it was read: {self.reading}.")
        return [*notes, *self.remarks]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain Python values that JSON can hold."""
        figures = self.detection.to_dict() if self.detection else {}
        looks = {one.name: one.to_dict() for one in self.looks}
        return {
            "source": self.source,
            "owner": self.owner,
            **({"recipient": self.recipient} if self.recipient else {}),
            "commitment": self.commitment,
            "verdict": self.verdict,
            "marked": self.marked,
            "log10_p": self.log10_p,
            "alpha": self.alpha,
            "certified": self.certified,
            "layer": self.layer,
            "kernels_tried": self.tried,
            "kernels_skipped": self.skipped,
            **figures,
            **self._parts_to_dict(),
            **({"looks": looks} if looks else {}),
            "notes": self.notes,
        }

    def _parts_to_dict(self) -> dict[str, Any]:
        parts = {name: part.to_dict() for name, part in self.parts.items()}
        return {"parts": parts} if parts else {}

    def plot(self) -> Figure:
        """A histogram of the scores, against what an unmarked kernel gives."""
        from keras_wm.plots import plot_scores

        return plot_scores(self)

    def rows(self) -> list[tuple[str, str]]:
        """The report, as pairs of a name and a value."""
        where = f"with {self.tried} {'tries' if self.looks else 'kernels tried'}"
        if self.parts:
            where = f"of {len(self.parts)} kernels together"
        rows = [
            ("verdict", self.verdict.upper()),
            ("p-value", f"{format_p(self.log10_p)}, {where}"),
            ("model", self.source),
            ("owner", self.owner),
            *([("recipient", self.recipient)] if self.recipient else []),
            ("commitment", self.commitment),
        ]
        if self.detection is not None:
            found = self.detection
            soft = found.log10_p_soft
            rows += [
                ("kernels" if self.parts else "kernel", str(self.layer)),
                ("bit errors", f"{found.bits - found.matches} of {found.bits}"),
                ("bit error rate", f"{found.ber:.4g}"),
                ("score z", f"mean {found.z_mean:.2f}, smallest {found.z_min:.2f}"),
                ("p of the bits", format_p(found.log10_p_hard)),
                (
                    "p of the scores",
                    "not exact here" if soft is None else format_p(soft),
                ),
            ]
        rows += [
            (
                f"in {name}",
                f"{part.bits - part.matches} bit errors, p {format_p(part.log10_p)}",
            )
            for name, part in self.parts.items()
        ]
        rows += [
            (one.name, f"{format_p(one.finding.log10_p)} by itself, {one}")
            for one in self.looks
        ]
        return rows + [("note", note) for note in self.notes]

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:>{width}}  {value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self.rows()
        )
        return f"<table>{cells}</table>"
