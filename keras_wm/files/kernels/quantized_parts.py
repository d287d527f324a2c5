"""Finding the arrays of a layer that make up a quantized kernel.

Keras stores these variables, under their names in its legacy format, and under their
numbers in this order in its own format:

    int8         kernel, bias, scale
    int4         kernel, bias, scale, zero, g_idx
    gptq         bias, kernel, scale, zero, g_idx
    awq          bias, kernel, scale, zero, awq_scales, g_idx
    embeddings   as int8 or int4, without bias; then, if a ReversibleEmbedding is not
                 tied, the kernel and scale (and zero) of the reverse embeddings

Bias, zero and g_idx can be missing, which shifts the numbers of the others. So the
arrays are identified by their types and shapes: only kernels and zeros are integers,
and a zero has the shape of its scale.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from keras_wm.files.contents import Stored

_BASES = ("kernel", "embeddings", "reverse_embeddings")
# GPTQ and AWQ use unsigned integers, the other modes signed ones.
_INTEGERS = ("int8", "uint8")


@dataclass(frozen=True)
class Parts:
    """The arrays that make up a quantized kernel.

    Attributes:
        variable: Name or number of the kernel.
        codes: The integers, possibly two of four bits in each byte.
        scale: Divisors of the codes or, if there are zeros, factors.
        zero: Zero points, which are subtracted from the codes before scaling.
        groups: Index of the group of each input, which selects its scale and zero.
        input_scales: Factors that AWQ multiplied the weights of each input by.
        bias: The layer's bias, whose shape is that of the outputs.
    """

    variable: str
    codes: Stored
    scale: Stored
    zero: Stored | None = None
    groups: Stored | None = None
    input_scales: Stored | None = None
    bias: Stored | None = None

    @property
    def arrays(self) -> list[Stored]:
        """The arrays that the kernel is computed from."""
        arrays = (self.codes, self.scale, self.zero, self.groups, self.input_scales)
        return [array for array in arrays if array is not None]


def parts_by_name(arrays: Mapping[str, Stored]) -> list[Parts]:
    """Returns the quantized kernels of a layer, given its arrays by variable name."""
    kernels = []
    for base in _BASES:
        codes, scale = arrays.get(base), arrays.get(f"{base}_scale")
        if codes is None or scale is None or not is_integer(codes):
            continue
        zero = arrays.get(f"{base}_zero") or arrays.get("zero_point")
        kernels.append(
            Parts(
                base,
                codes,
                scale,
                zero,
                arrays.get("g_idx") if zero else None,
                arrays.get("awq_scales") if codes.dtype == "uint8" else None,
                arrays.get("bias"),
            )
        )
    return kernels


def parts_by_position(arrays: Mapping[str, Stored]) -> list[Parts]:
    """Returns the quantized kernels of a layer, given its arrays by number.

    There are none if the arrays fit none of the orders in which Keras stores them.
    """
    names = sorted(arrays, key=int)
    rows = [arrays[name] for name in names]
    starts = [
        index
        for index, row in enumerate(rows)
        if is_integer(row) and not _is_zero(rows, index)
    ]
    kernels: list[Parts] = []
    for start, stop in itertools.pairwise([*starts, len(rows)]):
        # GPTQ and AWQ store the bias before the codes.
        bias = rows[start - 1] if start == 1 and rows[0].dtype != "uint8" else None
        others = rows[start + 1 : stop]
        parts = _match_parts(names[start], rows[start], others, bias, kernels)
        if parts is None:
            return []
        kernels.append(parts)
    return kernels


def _match_parts(
    name: str,
    codes: Stored,
    others: list[Stored],
    bias: Stored | None,
    previous: list[Parts],
) -> Parts | None:
    """Assigns arrays to their roles, or returns `None` if Keras never stores them so.

    Args:
        name: Number of the codes.
        codes: The integers.
        others: Arrays between these integers and those of the next kernel.
        bias: The array before the integers, if it can be the bias.
        previous: Kernels of the same layer with smaller numbers.
    """
    zero_at = next((at for at in range(len(others)) if _is_zero(others, at)), None)
    if previous and len(others) == 2 and others[0].shape == others[1].shape:
        # Reverse embeddings: their zeros are floats, and their groups are those of the
        # embeddings.
        return Parts(name, codes, others[0], others[1], previous[0].groups)
    if zero_at is None and codes.dtype == "uint8":
        # Keras up to 3.15 loses the zeros of GPTQ and AWQ when it saves.
        if not 2 <= len(others) <= 3:
            return None
        input_scales = others[1] if len(others) == 3 else None
        return Parts(name, codes, others[0], None, others[-1], input_scales, bias)
    if zero_at is None:
        if not 1 <= len(others) <= 2:
            return None
        has_bias = len(others) == 2
        return Parts(name, codes, others[-1], bias=others[0] if has_bias else bias)
    after_zero = others[zero_at + 1 :]
    if zero_at > 2 or not 1 <= len(after_zero) <= 2:
        return None
    return Parts(
        name,
        codes,
        others[zero_at - 1],
        others[zero_at],
        groups=after_zero[-1],
        input_scales=after_zero[0] if len(after_zero) == 2 else None,
        bias=others[0] if zero_at == 2 else bias,
    )


def _is_zero(rows: list[Stored], index: int) -> bool:
    """Returns whether an array holds the zero points of the scales before it."""
    return (
        index > 0
        and is_integer(rows[index])
        and not is_integer(rows[index - 1])
        and rows[index].shape == rows[index - 1].shape
    )


def is_integer(array: Stored) -> bool:
    """Returns whether an array holds small integers, with at least two axes."""
    return array.dtype in _INTEGERS and len(array.shape) > 1
