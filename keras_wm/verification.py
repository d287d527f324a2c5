"""Proving a mark: in a file that somebody downloaded, or in a model in memory."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.detection import Detection, corrected, format_p
from keras_wm.files import (
    DEFAULT_LIMITS,
    Limits,
    ModelFile,
    Sandbox,
    select,
)
from keras_wm.key import WatermarkKey
from keras_wm.search import search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_wm.looking import Look, Looks

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
            kernel can hold it.
        detection: The scores in that kernel, or `None`.
        tried: How many kernels were tried, each way of looking at one by itself;
            the p-value is multiplied by it.
        skipped: How many kernels cannot hold the message.
        certified: Whether the key is derived from a secret, so that finding the
            mark is evidence by itself.
        alpha: Marked means a corrected p-value below this.
        reading: How the kernel comes from what the file stores, where it is not
            stored as it is.
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
        elif self.detection.flaw:
            notes.append(f"The kernel is no evidence: {self.detection.flaw}.")
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
            **({"looks": looks} if looks else {}),
            "notes": self.notes,
        }

    def plot(self) -> Figure:
        """A histogram of the scores, against what an unmarked kernel gives."""
        from keras_wm.plots import plot_scores

        return plot_scores(self)

    def rows(self) -> list[tuple[str, str]]:
        """The report, as pairs of a name and a value."""
        tries = "tries" if self.looks else "kernels tried"
        rows = [
            ("verdict", self.verdict.upper()),
            ("p-value", f"{format_p(self.log10_p)}, with {self.tried} {tries}"),
            ("model", self.source),
            ("owner", self.owner),
            ("commitment", self.commitment),
        ]
        if self.detection is not None:
            found = self.detection
            soft = found.log10_p_soft
            rows += [
                ("kernel", str(self.layer)),
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


def verify(
    model: Any,
    key: WatermarkKey,
    layer: str | None = None,
    alpha: float = MARKED,
    limits: Limits = DEFAULT_LIMITS,
    sandbox: bool | Sandbox = False,
    reference: Any = None,
    reordered: bool = False,
) -> Verification:
    """Looks for a key's mark in a model file or a model in memory.

    A file is never loaded as a model: arrays are read from it, one at a time, and
    nothing in it is executed or deserialized. Keras is not imported.

    Args:
        model: A path or URL of a model file or folder, of any kind that
            `keras_wm.files.open_model_file` reads, or a Keras model.
        key: The `WatermarkKey` to look for.
        layer: The layer to look in. `None`, the default, tries every kernel that
            can hold the message and corrects the p-value for their number.
        alpha: Marked means a corrected p-value below this. Defaults to 1e-9.
        limits: What a file may ask of this machine. Defaults to `Limits()`.
        sandbox: Whether a file is read in a process of its own, which it may crash,
            hang or bloat at the cost of an error here. A `Sandbox` is used for as
            many files as you like. Defaults to `False`.
        reference: The owner's own marked model, of the kinds that `model` may have,
            with its config. The suspect's channels are put where the owner's are, and
            each kernel is looked at as it is and so. A layer is then named as in the
            reference.
        reordered: Whether the filters of each kernel are also put into the order,
            with the signs, that the key likes best, and the p-value multiplied by the
            number of orders.

    Returns:
        A `Verification`.

    Raises:
        ModelFileError: If the file cannot be read, is refused as unsafe, or is
            not a Keras model.
        LayerNotFoundError: If the layer is not found.
        AlignmentError: If the reference does not tell how its layers are connected.
        ValueError: If the named layer cannot hold the key's message.

    Example:

    ```python
    result = keras_wm.verify("downloaded.keras", key)
    if result.marked:
        print(result)
    ```
    """
    check_key(key)
    check_alpha(alpha)
    owners = None
    if reference is not None:
        from keras_wm.reference import read_reference

        with open_model(reference, limits, sandbox) as opened:
            owners = read_reference(opened)
    looks: Looks | None = None
    with open_model(model, limits, sandbox) as opened:
        source, kernels = opened.path, opened.kernels
        if owners is not None or reordered:
            from keras_wm.looking import look

            looks = look(opened, key, layer, limits, owners, reordered)
            found = looks.best
        else:
            if layer is not None:
                kernels = select(kernels, layer, source)
            (found,) = search(kernels, [key], limits)
            if layer is not None and not found.tried:
                key.check_shape(kernels[0].shape)
    return Verification(
        source=source,
        owner=key.owner,
        commitment=key.commitment,
        layer=found.kernel.name if found.kernel else None,
        detection=found.detection,
        tried=found.tried,
        skipped=found.skipped,
        certified=key.certified,
        alpha=alpha,
        reading=found.kernel.note if found.kernel else "",
        log10_arrangements=found.log10_arrangements,
        looks=looks.each if looks else (),
        remarks=looks.remarks if looks else (),
    )


def check_key(key: object) -> None:
    """Refuses what is no key."""
    if not isinstance(key, WatermarkKey):
        raise TypeError(
            "Expected a WatermarkKey; read a key file with WatermarkKey.load(path). "
            f"Received: key of type {type(key).__name__}"
        )


def check_alpha(alpha: float) -> None:
    """Refuses what is no probability."""
    if not 0 < alpha < 1:
        raise ValueError(f"Expected 0 < alpha < 1. Received: alpha={alpha!r}")


@contextmanager
def open_model(
    model: Any, limits: Limits = DEFAULT_LIMITS, sandbox: bool | Sandbox = False
) -> Iterator[ModelFile]:
    """What is in a model file, or in a model in memory."""
    if isinstance(model, (str, os.PathLike)):
        with ExitStack() as stack:
            if sandbox is True:
                sandbox = stack.enter_context(Sandbox(limits))
            if sandbox:
                opened = sandbox.open_model_file(model)
            else:
                from keras_wm.files import open_model_file

                opened = open_model_file(model, limits)
            yield stack.enter_context(opened)
    elif hasattr(model, "weights") and hasattr(model, "name"):
        from keras_wm.weights_in_memory import config_in_memory, weights_in_memory

        yield ModelFile(
            "Keras model",
            weights_in_memory(model),
            lambda: config_in_memory(model),
            path=f"model {model.name!r} in memory",
        )
    else:
        raise TypeError(
            "Expected the path of a model file or a Keras model. "
            f"Received: {type(model).__name__}"
        )
