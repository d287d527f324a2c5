"""Interface of the stored arrays of a layer, in any format of file or in memory."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from keras_wm.files.contents import Kernel
from keras_wm.utils.text import printable


class Stored(Protocol):
    """A stored array that has not been read yet."""

    @property
    def path(self) -> str:
        """Path of the array in its source, for error messages."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""

    @property
    def dtype(self) -> str:
        """Name of the stored type."""

    @property
    def is_float(self) -> bool:
        """True if the array holds floats, with at least one axis."""

    def read(self) -> NDArray[Any]:
        """Reads the array."""


def as_kernel(array: Stored, layer: str, variable: str) -> Kernel:
    """Returns an array as a weight of a layer, unchanged.

    Args:
        array: The array.
        layer: Name of the layer.
        variable: Name or number of the variable.

    Returns:
        The weight.
    """
    return Kernel(
        layer=printable(layer, most=1000),
        variable=printable(variable),
        path=printable(array.path, most=1000),
        shape=array.shape,
        dtype=array.dtype,
        read=array.read,
    )
