"""What a model file holds, and how many bits each kernel of it can carry."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from keras_wm.files import DEFAULT_LIMITS, Limits, Sandbox
from keras_wm.files.model_file import open_model
from keras_wm.scheme.capacity import readable_weights, unseen_bits
from keras_wm.scheme.projection import KEYED_GROUPS


@dataclass(frozen=True)
class KernelReport:
    """One kernel, and its capacity for a mark with keyed filters.

    Attributes:
        layer: The layer's name.
        variable: The variable's name or position in the layer.
        shape: The kernel's shape, filters last.
        dtype: The stored type.
        holds: How many bits it can hold with every bit clear: M min(G, L).
        unseen: How many it can hold, at a margin of 4 standard deviations, without
            a change of its statistics that can be seen.
        note: How the kernel comes from what the file stores, where it is not stored
            as it is.
    """

    layer: str
    variable: str
    shape: tuple[int, ...]
    dtype: str
    holds: int
    unseen: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain Python values that JSON can hold."""
        return {**asdict(self), "shape": list(self.shape)}


def inspect(
    model: Any, limits: Limits = DEFAULT_LIMITS, sandbox: bool | Sandbox = False
) -> list[KernelReport]:
    """Lists the kernels of a model that could carry a mark.

    Args:
        model: A path or URL of a model file or folder, of any kind that
            `keras_wm.files.open_model_file` reads, or a Keras model. A file is not
            loaded as a model, and no array of it is read.
        limits: What a file may ask of this machine. Defaults to `Limits()`.
        sandbox: Whether a file is read in a process of its own. Defaults to `False`.

    Returns:
        A list of `KernelReport`, in the order of the file.

    Raises:
        ModelFileError: If the file cannot be read or is refused.
    """
    with open_model(model, limits, sandbox) as opened:
        return [
            KernelReport(
                kernel.layer,
                kernel.variable,
                kernel.shape,
                kernel.dtype,
                readable_weights(*_size(kernel.shape), KEYED_GROUPS),
                unseen_bits("keyed", *_size(kernel.shape)),
                kernel.note,
            )
            for kernel in opened.kernels
        ]


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    return prod(shape[:-1]), shape[-1]
