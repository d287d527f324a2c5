"""One idea of an array that is stored of a layer, wherever that is."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from keras_wm.files.contents import Kernel
from keras_wm.utils.text import printable


class Stored(Protocol):
    """An array that has not been read."""

    @property
    def path(self) -> str:
        """Where it stands, for error messages."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> str:
        """The name of its type."""

    @property
    def is_float(self) -> bool:
        """Whether it is of floats, with one axis or more."""

    def read(self) -> NDArray[Any]:
        """Reads it."""


def as_kernel(array: Stored, layer: str, variable: str) -> Kernel:
    """An array as a weight of a layer, as it is stored.

    Args:
        array: The array.
        layer: The layer's name.
        variable: The variable's name or number.

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
