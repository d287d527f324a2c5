"""One idea of a kernel, wherever it is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_wm.errors import LayerNotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Kernel:
    """A weight array that may carry a mark: where it is, and how to read it.

    Nothing of the array is read before `read()` is called.

    Attributes:
        layer: The layer's name, behind those of the models it is nested in:
            `"c1"`, `"encoder/dense_3"`.
        variable: The variable in the layer: `"kernel"` where the source tells,
            its position (`"0"`) where it does not.
        path: Where the array stands in its source, for error messages.
        shape: The array's shape, filters last.
        dtype: The stored type's name, such as `"float32"` or `"bfloat16"`.
        read: Reads the array, as a NumPy array of floats.
        note: What a reader of a report has to know of how the kernel comes from
            what is stored: unpacked, merged, with its axes in another order. An
            empty string where it is stored as it is.
    """

    layer: str
    variable: str
    path: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[np.floating]]
    note: str = ""

    @property
    def name(self) -> str:
        """The layer's name and the variable's: `"c1/kernel"`."""
        return f"{self.layer}/{self.variable}"


def select(kernels: Sequence[Kernel], layer: str, source: str) -> list[Kernel]:
    """The kernels of one layer, and of the layers inside it.

    Args:
        kernels: Kernels to choose from.
        layer: A layer's name, with as many of the models around it, or the
            variable behind it, as make it unique: `"c1"`, `"encoder/c1"`,
            `"c1/kernel"`. That of a wrapper or a model stands for all in it. Dots
            may stand for slashes, and the other way round: `"encoder.c1"`.
        source: What the kernels come from, for the error message.

    Returns:
        The kernels whose layer has that name; several where the layer has
        several or several layers share the name.

    Raises:
        LayerNotFoundError: If no layer has that name.
    """
    chosen = [kernel for kernel in kernels if f"/{layer}/" in f"/{kernel.name}/"]
    if not chosen:
        wanted = f"/{_slashed(layer)}/"
        chosen = [
            kernel for kernel in kernels if wanted in f"/{_slashed(kernel.name)}/"
        ]
    if not chosen:
        raise LayerNotFoundError(
            f"{source} has no layer {layer!r} with a kernel. "
            f"It has: {_some(sorted({kernel.layer for kernel in kernels}))}."
        )
    return chosen


def _slashed(name: str) -> str:
    """A name as Keras would write it where PyTorch has dots between its parts."""
    return name.replace(".", "/")


def _some(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
