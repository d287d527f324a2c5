"""Contents of a model: stored arrays, kernels, which can carry a mark, and a config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keras_wm.errors import LayerNotFoundError
from keras_wm.utils.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Most layers that an error message lists.
_SHOWN_NAMES = 12
# An array with more axes is not considered a weight.
MOST_AXES = 8


@dataclass(frozen=True)
class Kernel:
    """A weight array that may carry a mark: its description, and how to read it.

    Nothing of the array is read before `read()` is called.

    Attributes:
        layer: Name of the layer, preceded by the names of the models that contain it:
            `"c1"`, `"encoder/dense_3"`.
        variable: Name of the variable in the layer, such as `"kernel"`, or its
            position (`"0"`) in a source that stores no names.
        path: Path of the array in its source, for error messages.
        shape: Shape of the array, filters last.
        dtype: Name of the stored type, such as `"float32"` or `"bfloat16"`.
        read: Reads the array, as a NumPy array of floats.
        note: Steps from the stored arrays to the kernel (unpacked, merged, axes
            permuted), for the reader of a report. Empty if it is stored directly.
        unused: The reason why the model does not compute with this array, according
            to its config. Empty if it does, or if this cannot be known; see
            `Contents.has_config`.
    """

    layer: str
    variable: str
    path: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[np.floating]]
    note: str = ""
    unused: str = ""

    @property
    def name(self) -> str:
        """The name of the layer and of the variable: `"c1/kernel"`."""
        return f"{self.layer}/{self.variable}"


@dataclass(frozen=True)
class Stored:
    """A stored array that has not been read yet.

    Attributes:
        path: Path of the array in its source, for error messages.
        shape: Shape of the array.
        dtype: Name of the stored type.
        read: Reads the array.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[Any]]

    @property
    def is_float(self) -> bool:
        """True if it can be a weight: floats, with a plausible number of axes."""
        plausible = 1 <= len(self.shape) <= MOST_AXES and 0 not in self.shape
        return plausible and "float" in self.dtype


def as_kernel(array: Stored, layer: str, variable: str) -> Kernel:
    """Returns an array as a weight of a layer, unchanged."""
    return Kernel(
        layer=printable(layer, most=1000),
        variable=printable(variable),
        path=printable(array.path, most=1000),
        shape=array.shape,
        dtype=array.dtype,
        read=array.read,
    )


def arrays_of(layers: Iterable[Mapping[str, Stored]]) -> list[Stored]:
    """Returns the arrays of all layers."""
    return [array for arrays in layers for array in arrays.values()]


# Lists the stored arrays.
ListArrays = Callable[[], list[Stored]]


def no_arrays() -> list[Stored]:
    """The `Contents.arrays` of a model without arrays."""
    return []


# Reads a model's config as plain data, which must not be trusted. Returns `None` if
# the config is missing or cannot be read.
ReadConfig = Callable[[], Any]


def no_config() -> None:
    """The `Contents.config` of a model without a config."""


@dataclass(frozen=True)
class Contents:
    """Contents of a model file.

    Attributes:
        format: Format of the file, recognised by its content.
        weights: All arrays of floats, with at least one axis, in the file's order. The
            model does not compute with those that are `Kernel.unused`.
        config: Reads the model's config; see `ReadConfig`.
        arrays: Lists the stored arrays that the weights are computed from, each once.
            Others, such as counters, can be among them.
        has_config: Whether a config of Keras says which layers the model has. Without
            one, as in a file of weights, nobody can know which arrays are unused.
        custom_classes: Names of the classes in the config that are not Keras's own.
            Nobody can know what they compute with, so every array in an object of
            such a class counts as used.
    """

    format: str
    weights: list[Kernel]
    config: ReadConfig = no_config
    arrays: ListArrays = no_arrays
    has_config: bool = False
    custom_classes: tuple[str, ...] = ()

    @property
    def kernels(self) -> list[Kernel]:
        """The weights with at least two axes, which can carry a mark."""
        return [weight for weight in self.weights if len(weight.shape) > 1]


@dataclass(frozen=True)
class ModelFile(Contents):
    """An open model file; see `Contents` for its other attributes.

    Attributes:
        path: Path or URL of the file, or a description of its source.
    """

    path: str = field(kw_only=True)


def select(kernels: Sequence[Kernel], layer: str | None, source: str) -> list[Kernel]:
    """Returns the kernels of a layer, and of the layers inside it.

    Args:
        kernels: Kernels to choose from.
        layer: Name of the layer. If it is not unique, precede it by the names of
            models that contain the layer, or append the variable: `"c1"`,
            `"encoder/c1"`, `"c1/kernel"`. The name of a wrapper or a model selects
            everything in it. Dots and slashes are equivalent: `"encoder.c1"`.
            `None` selects all kernels.
        source: Name of the model, for the error message.

    Returns:
        The kernels of the layer; several if the layer has several, or if several
        layers share the name.

    Raises:
        LayerNotFoundError: If no layer has that name.
    """
    if layer is None:
        return list(kernels)
    for spelling in (str, _with_slashes):
        wanted = f"/{spelling(layer)}/"
        chosen = [
            kernel for kernel in kernels if wanted in f"/{spelling(kernel.name)}/"
        ]
        if chosen:
            return chosen
    raise LayerNotFoundError(
        f"{source} has no layer {layer!r} with a kernel. "
        f"It has: {_list_names(sorted({kernel.layer for kernel in kernels}))}."
    )


def _with_slashes(name: str) -> str:
    """Returns a name as Keras writes it; PyTorch separates the parts by dots."""
    return name.replace(".", "/")


def _list_names(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN_NAMES]))
    hidden = len(names) - _SHOWN_NAMES
    return f"{shown} and {hidden} more" if hidden > 0 else shown
