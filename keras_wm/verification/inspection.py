"""inspect: the kernels of a model, and how many bits each can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, ClassVar, overload

from keras_wm.files import Kernel, Limits, ModelSource, Sandbox, open_model
from keras_wm.scheme.capacity import readable_weights, unseen_bits
from keras_wm.scheme.secret_source import KEYED_GROUPS
from keras_wm.verification.report import TextReport

_COLUMNS = ("layer", "variable", "shape", "dtype", "bits it holds", "unseen", "note")


@dataclass(frozen=True)
class KernelReport:
    """A kernel, and its capacity for a mark with keyed filters.

    Attributes:
        layer: Name of the layer.
        variable: Name of the variable in the layer, or its position.
        shape: Shape of the kernel, filters last.
        dtype: Name of the stored type.
        holds: Number of bits that the kernel can hold: M min(G, L) with M weights per
            filter, L filters and G different filter weights.
        unseen: Number of bits that the kernel can hold, at a margin of 4 standard
            deviations, before the mark can be detected in its statistics without the
            key.
        note: Steps from the stored arrays to the kernel, such as "int8,
            dequantized". Empty if it is stored directly.
    """

    layer: str
    variable: str
    shape: tuple[int, ...]
    dtype: str
    holds: int
    unseen: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, which JSON can hold."""
        return {**asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True, repr=False)
class Inspection(TextReport, Sequence[KernelReport]):
    """Report of `inspect`: a sequence of `KernelReport`s that prints as a table.

    Attributes:
        source: Path or URL of the model file, or the name of the model in memory.
        kernels: The `KernelReport` of each kernel, in the order of the model.
    """

    _columns: ClassVar = _COLUMNS
    _right_aligned: ClassVar = (4, 5)

    source: str
    kernels: tuple[KernelReport, ...]

    def __len__(self) -> int:
        return len(self.kernels)

    @overload
    def __getitem__(self, index: int) -> KernelReport: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[KernelReport]: ...
    def __getitem__(self, index: int | slice) -> KernelReport | Sequence[KernelReport]:
        return self.kernels[index]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, which JSON can hold."""
        kernels = [kernel.to_dict() for kernel in self.kernels]
        return {"source": self.source, "kernels": kernels}

    def rows(self) -> list[tuple[str, ...]]:
        """Returns one row of text per kernel."""
        return [
            (
                kernel.layer,
                kernel.variable,
                "x".join(map(str, kernel.shape)),
                kernel.dtype,
                str(kernel.holds),
                str(kernel.unseen),
                kernel.note,
            )
            for kernel in self.kernels
        ]


def inspect(
    model: ModelSource,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
) -> Inspection:
    """Lists the kernels of a model that can carry a mark.

    A model file is never loaded as a model, and no array of it is read.

    Args:
        model: Model file, as its path or URL or as an open binary file, in any
            format that `keras_wm.files.open_model_file` reads; or a Keras model.
        limits: `Limits` on the resources that reading the file can use. `None` uses
            the default limits. Defaults to `None`.
        sandbox: Whether to read the file in a child process, or the `Sandbox` to read
            it in. Defaults to `False`.

    Returns:
        An `Inspection`: a sequence with one `KernelReport` per kernel, in the order
        of the model.

    Raises:
        ModelFileError: If the file cannot be read or is refused as unsafe.
        TypeError: If `model` has another type.

    Example:

    ```python
    for kernel in keras_wm.inspect("model.keras"):
        print(kernel.layer, kernel.shape, kernel.unseen)
    ```
    """
    with open_model(model, limits, sandbox) as model_file:
        kernels = tuple(map(_kernel_report, model_file.kernels))
    return Inspection(model_file.path, kernels)


def _kernel_report(kernel: Kernel) -> KernelReport:
    weights, filters = prod(kernel.shape[:-1]), kernel.shape[-1]
    return KernelReport(
        kernel.layer,
        kernel.variable,
        kernel.shape,
        kernel.dtype,
        readable_weights(weights, filters, KEYED_GROUPS),
        unseen_bits("keyed", weights, filters),
        kernel.note,
    )
