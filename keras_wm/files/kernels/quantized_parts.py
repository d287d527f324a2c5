"""Which of a layer's arrays make up a quantized kernel.

Keras names them in its legacy format, and numbers them in its own:

    int8         kernel, bias, scale
    int4         kernel, bias, scale, zero, g_idx
    gptq         bias, kernel, scale, zero, g_idx
    awq          bias, kernel, scale, zero, awq_scales, g_idx
    embeddings   as int8 or int4, without bias; then, if a ReversibleEmbedding is not
                 tied, the kernel and scale (and zero) of the way back

Bias, zero and g_idx may be missing. The numbers do not tell, but the types and shapes
do: only kernels and zeros are integers, and a zero has the shape of its scale.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from keras_wm.files.kernels.stored import Stored

_BASES = ("kernel", "embeddings", "reverse_embeddings")
_INTEGERS = ("int8", "uint8")


@dataclass(frozen=True)
class Parts:
    """The arrays that make up a quantized kernel.

    Attributes:
        variable: The kernel's name or number.
        codes: The integers.
        scale: What they are divided by or, where there is a zero, multiplied by.
        zero: What is subtracted from them before.
        groups: Which group's scale and zero each input takes.
        input_scales: What AWQ multiplied each input's weights by.
        bias: The layer's bias, whose shape tells that of the outputs.
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
        """Those of the arrays that are there."""
        every = (self.codes, self.scale, self.zero, self.groups, self.input_scales)
        return [array for array in every if array is not None]


def parts_by_name(arrays: Mapping[str, Stored]) -> list[Parts]:
    """The quantized kernels among arrays by the names of their variables."""
    found = []
    for base in _BASES:
        codes, scale = arrays.get(base), arrays.get(f"{base}_scale")
        if codes is None or scale is None or not is_integer(codes):
            continue
        zero = arrays.get(f"{base}_zero") or arrays.get("zero_point")
        found.append(
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
    return found


def parts_by_position(arrays: Mapping[str, Stored]) -> list[Parts]:
    """The quantized kernels among arrays by their numbers."""
    names = sorted(arrays, key=int)
    rows = [arrays[name] for name in names]
    starts = [index for index, row in enumerate(rows) if _is_codes(index, rows)]
    found: list[Parts] = []
    for start, stop in itertools.pairwise([*starts, len(rows)]):
        bias = rows[start - 1] if start == 1 and rows[0].dtype != "uint8" else None
        parts = _parts(names[start], rows[start], rows[start + 1 : stop], bias, found)
        if parts is None:
            return []
        found.append(parts)
    return found


def _parts(
    name: str,
    codes: Stored,
    rest: list[Stored],
    bias: Stored | None,
    found: list[Parts],
) -> Parts | None:
    """The parts of a kernel, from what follows its integers."""
    zero_at = next((at for at in range(len(rest)) if _is_zero(rest, at)), None)
    if found and len(rest) == 2 and rest[0].shape == rest[1].shape:
        # The zero of the way back of embeddings is of floats, and its groups are those
        # of the way there.
        return Parts(name, codes, rest[0], rest[1], found[0].groups)
    if zero_at is None and codes.dtype == "uint8":
        # Keras up to 3.15 loses the zeros of GPTQ and AWQ when it saves.
        if not 2 <= len(rest) <= 3:
            return None
        inputs = rest[1] if len(rest) == 3 else None
        return Parts(name, codes, rest[0], None, rest[-1], inputs, bias)
    if zero_at is None:
        if not 1 <= len(rest) <= 2:
            return None
        return Parts(name, codes, rest[-1], bias=rest[0] if len(rest) == 2 else bias)
    behind = rest[zero_at + 1 :]
    if zero_at > 2 or not 1 <= len(behind) <= 2:
        return None
    return Parts(
        name,
        codes,
        rest[zero_at - 1],
        rest[zero_at],
        groups=behind[-1],
        input_scales=behind[0] if len(behind) == 2 else None,
        bias=rest[0] if zero_at == 2 else bias,
    )


def _is_codes(index: int, rows: list[Stored]) -> bool:
    return is_integer(rows[index]) and not _is_zero(rows, index)


def _is_zero(rows: list[Stored], index: int) -> bool:
    """Whether integers are the zeros of the scales in front of them."""
    return (
        index > 0
        and is_integer(rows[index])
        and not is_integer(rows[index - 1])
        and rows[index].shape == rows[index - 1].shape
    )


def is_integer(array: Stored) -> bool:
    """Whether an array is of small integers, with two axes or more."""
    return array.dtype in _INTEGERS and len(array.shape) > 1
