"""Effective kernels of quantized layers, as Keras's own layers compute them.

A file of weights does not contain the mode of quantization, and the types and shapes of
the arrays can fit several modes: 4-bit codes in bytes look like 8-bit codes of a kernel
of half the size. Each mode is a generator of *candidates*, one for each way in which
the arrays can be read. The model's config, if there is one, usually leaves one of them.
Otherwise all are tested for a mark, since a wrong one is a kernel without a mark.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from keras_wm.errors import ModelFileError
from keras_wm.files.config.layer_facts import LayerFacts
from keras_wm.files.contents import Kernel, Stored, as_kernel
from keras_wm.files.kernels.quantized_parts import Parts
from keras_wm.files.limits import Limits, vet_limit
from keras_wm.utils.text import printable

Float32s = NDArray[np.float32]
Shape = tuple[int, ...]
# Axis along which two codes of four bits are in each byte, the lower half first, and
# the number of codes along it.
Packed = tuple[int, int]

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class _Candidate:
    """One way of reading the parts of a kernel.

    Attributes:
        mode: Mode of quantization, as in the config of the layer.
        shape: Shape of the kernel.
        read: Computes the kernel, in a shape with the same number of entries.
        note: Details for the reader of a report.
    """

    mode: str
    shape: Shape
    read: Callable[[], Float32s]
    note: str = ""


def kernels_of_quantized(
    layer: str, parts: Parts, facts: LayerFacts, limits: Limits
) -> list[Kernel]:
    """Returns the kernels that the parts of a quantized layer can be.

    Args:
        layer: Name of the layer.
        parts: The arrays that make up the kernel.
        facts: Facts about the layer in the model's config.
        limits: Limits on the resources that a kernel can use.

    Returns:
        The kernels; none if the arrays do not fit any mode of Keras.
    """
    candidates = list(_candidates(parts, facts))
    # The config is a hint: it selects among candidates, but never rejects all of them,
    # so that a wrong config cannot hide a kernel.
    shapes = facts.shapes.values()
    candidates = _prefer(candidates, lambda candidate: candidate.mode == facts.mode)
    candidates = _prefer(candidates, lambda candidate: candidate.shape in shapes)
    return [
        replace(
            as_kernel(parts.codes, layer, parts.variable),
            shape=candidate.shape,
            read=partial(_read, candidate, parts, limits),
            note=f"{candidate.mode}, scales applied{candidate.note}",
        )
        for candidate in candidates
    ]


def _prefer(
    candidates: list[_Candidate], condition: Callable[[_Candidate], bool]
) -> list[_Candidate]:
    """Returns the candidates that satisfy a condition, or all if none does."""
    return list(filter(condition, candidates)) or candidates


def _read(candidate: _Candidate, parts: Parts, limits: Limits) -> Float32s:
    # Codes within the limit can exceed it when they are unpacked: from half a byte to
    # four bytes each.
    size = _FLOAT32_BYTES * math.prod(candidate.shape)
    problem = f"'{printable(parts.codes.path)}' unpacks to {size:,} bytes, more"
    vet_limit(limits, "array_bytes", size, problem)
    # A scale of zero gives non-finite weights, which the detection reports.
    with np.errstate(all="ignore"):
        return candidate.read().reshape(candidate.shape)


def _candidates(parts: Parts, facts: LayerFacts) -> Iterator[_Candidate]:
    """Generates the candidates of every mode that the types and axes allow."""
    axes, scale_axes = len(parts.codes.shape), len(parts.scale.shape)
    is_unsigned = parts.codes.dtype == "uint8"
    # Only GPTQ and AWQ use unsigned codes, and only int4 in groups has zero points
    # besides them.
    if is_unsigned or parts.zero is not None:
        inputs = _count_grouped_inputs(parts)
        if inputs is not None:
            in_groups = _gptq_and_awq if is_unsigned else _int4_in_groups
            yield from in_groups(parts, inputs, facts)
    else:
        yield from _int8(parts, facts)
        if axes == 2 and scale_axes == 1:
            yield from _int4(parts, facts)
        elif axes > 2:
            yield from _int4_of_many_axes(parts, facts)


def _count_grouped_inputs(parts: Parts) -> int | None:
    """Returns the number of inputs, or `None` if the shapes are not those of groups."""
    if parts.groups is None or len(parts.groups.shape) != 1:
        return None
    if len(parts.codes.shape) != 2 or len(parts.scale.shape) != 2:
        return None
    if parts.zero is not None and parts.zero.shape != parts.scale.shape:
        return None
    return parts.groups.shape[0]


def _int8(parts: Parts, facts: LayerFacts) -> Iterator[_Candidate]:
    """Generates W = codes / scale."""
    shape = parts.codes.shape
    for axes in _scale_axes(parts, facts):
        # Scales along the last axes, the filters, are the rule and need no note.
        are_last = axes == tuple(range(len(shape) - len(axes), len(shape)))
        note = "" if are_last else f" along axes {axes}"
        yield _Candidate("int8", shape, partial(_divide, parts, axes), note)


def _int4_of_many_axes(parts: Parts, facts: LayerFacts) -> Iterator[_Candidate]:
    """Generates W = codes / scale, as Keras up to 3.13 packed EinsumDense.

    Two codes are in each byte, along the first axis without scales.
    """
    shape = parts.codes.shape
    for axes in _scale_axes(parts, facts):
        packed = next((axis for axis in range(len(shape)) if axis not in axes), None)
        if packed is None:
            continue
        # An odd number of codes leaves the last half byte unused.
        for length in (2 * shape[packed], 2 * shape[packed] - 1):
            read = partial(_divide, parts, axes, (packed, length))
            unpacked = (*shape[:packed], length, *shape[packed + 1 :])
            note = f", {length} entries of axis {packed} packed in pairs"
            yield _Candidate("int4", unpacked, read, note)


def _scale_axes(parts: Parts, facts: LayerFacts) -> list[Shape]:
    """Returns the axes of the codes that the axes of the scales can belong to.

    Scales have the axes of the layer's output, among them axes of size 1. Their order
    can differ from that of the codes, but is known only from the equation of the
    layer. Without it, every choice of axes with the right sizes, in order, is possible.
    """
    shape = parts.codes.shape
    sizes = tuple(size for size in parts.scale.shape if size > 1)
    known = facts.scale_axes
    if known is not None and max(known, default=-1) < len(shape):
        axes = tuple(axis for axis in known if shape[axis] > 1)
        if tuple(shape[axis] for axis in axes) == sizes:
            return [axes]
    return [
        axes
        for axes in itertools.combinations(range(len(shape)), len(sizes))
        if tuple(shape[axis] for axis in axes) == sizes
    ]


def _divide(parts: Parts, axes: Shape, packed: Packed | None = None) -> Float32s:
    """Returns codes / scale, with scales along some axes of the codes."""
    sizes = [size for size in parts.scale.shape if size > 1]
    values = _floats(parts.scale).reshape(sizes).transpose(np.argsort(axes))
    others = [axis for axis in range(len(parts.codes.shape)) if axis not in axes]
    scale: Float32s = np.expand_dims(values, others)
    return _codes(parts, packed) / scale


def _int4(parts: Parts, facts: LayerFacts) -> Iterator[_Candidate]:
    """Generates W = codes / scale for a matrix, two codes in each byte.

    The scales can belong to columns (Dense and EinsumDense, and reverse embeddings) or
    to rows (embeddings); the codes can be packed along either.
    """
    (rows, columns), (count,) = parts.codes.shape, parts.scale.shape
    by_row, by_column = ((0,), (1,)) if count > 1 else ((), ())
    if columns == _half(count):
        shape = _kernel_shape(parts, facts, rows, count)
        yield _Candidate("int4", shape, partial(_divide, parts, by_column, (1, count)))
    if rows == count:
        # Nothing in an embedding's arrays shows whether its number of columns is odd.
        for width in (2 * columns, 2 * columns - 1):
            read = partial(_divide, parts, by_row, (1, width))
            yield _Candidate("int4", (rows, width), read)
    if columns == count:
        # Keras up to 3.13 packed along the inputs, and newer versions still pack
        # reverse embeddings in this way.
        for height in (2 * rows, 2 * rows - 1):
            read = partial(_divide, parts, by_column, (0, height))
            note = f", {height} inputs packed in pairs"
            yield _Candidate("int4", (height, count), read, note)


def _int4_in_groups(
    parts: Parts, inputs: int, facts: LayerFacts
) -> Iterator[_Candidate]:
    """Generates W = (codes - zero) * scale, with zero and scale of the input's group.

    In Dense and EinsumDense, the codes have the shape (inputs, outputs / 2) and the
    scales (groups, outputs). Embeddings have groups of their features: codes (words,
    features / 2) and scales (words, groups). Reverse embeddings have codes
    (features / 2, words) and scales (groups, words).
    """
    rows, columns = parts.codes.shape
    first, last = parts.scale.shape
    if rows == inputs and columns == _half(last):
        shape = _kernel_shape(parts, facts, rows, last)
        yield _Candidate("int4", shape, partial(_scale_groups, parts, 0, (1, last)))
    elif rows == first and columns == _half(inputs):
        shape = (rows, inputs)
        yield _Candidate("int4", shape, partial(_scale_groups, parts, 1, (1, inputs)))
    elif columns == last and rows == _half(inputs):
        shape = (inputs, columns)
        yield _Candidate("int4", shape, partial(_scale_groups, parts, 0, (0, inputs)))


def _gptq_and_awq(parts: Parts, inputs: int, facts: LayerFacts) -> Iterator[_Candidate]:
    """Generates the transpose of (codes - zero) * scale, with unsigned codes.

    The shape is (outputs, inputs), or (outputs / 2, inputs) for codes of four bits. AWQ
    also divides by the factors of the inputs.
    """
    rows, columns = parts.codes.shape
    outputs, _ = parts.scale.shape
    is_packed = rows == _half(outputs) != outputs
    if columns != inputs or not (is_packed or rows == outputs):
        return

    def read() -> Float32s:
        values = _scale_groups(parts, 1, (0, outputs) if is_packed else None).T
        if parts.input_scales is not None:
            values = values / _floats(parts.input_scales)[:, None]
        return values

    mode = "gptq" if parts.input_scales is None else "awq"
    # Without the stored zeros, a constant can be missing for each filter and group.
    note = "" if parts.zero is not None else ", half the range for the lost zeros"
    yield _Candidate(mode, _kernel_shape(parts, facts, inputs, outputs), read, note)


def _scale_groups(parts: Parts, group_axis: int, packed: Packed | None) -> Float32s:
    """Returns (codes - zero) * scale, with the groups along one axis of the scales."""
    assert parts.groups is not None  # noqa: S101 (checked by the callers)
    groups = parts.groups.read()
    count = parts.scale.shape[group_axis]
    # Negated, so that NaN is an error, too: Keras stores the groups as floats.
    if not ((groups >= 0) & (groups < count)).all():
        raise ModelFileError(
            f"'{printable(parts.groups.path)}' names groups that do not exist: "
            f"'{printable(parts.scale.path)}' has {count}."
        )
    group = groups.astype(np.intp)
    scale = _floats(parts.scale).take(group, group_axis)
    codes = _codes(parts, packed)
    if parts.zero is None:
        return (codes - _half_range(codes)) * scale
    return (codes - _floats(parts.zero).take(group, group_axis)) * scale


def _half_range(codes: Float32s) -> float:
    """Returns half the range of the codes, which have the bits of the largest one.

    This is the zero point of symmetric quantization, and close to that of asymmetric
    quantization if the weights of each group are spread evenly around zero.
    """
    return 2.0 ** (int(codes.max()).bit_length() - 1)


def _codes(parts: Parts, packed: Packed | None) -> Float32s:
    """Returns the codes, unpacked; without `packed`, each code has a byte."""
    if packed is None:
        return _floats(parts.codes)
    axis, length = packed
    codes = parts.codes.read()
    halves = [codes & 0x0F, codes.view(np.uint8) >> 4]
    values = np.stack(halves, axis=axis + 1).astype(np.float32)
    if codes.dtype == np.int8:
        # Two's complement: 8 to 15 stand for -8 to -1.
        values -= 16 * (values > 7)
    shape = list(codes.shape)
    shape[axis] *= 2
    return values.reshape(shape)[(slice(None),) * axis + (slice(length),)]


def _kernel_shape(parts: Parts, facts: LayerFacts, inputs: int, outputs: int) -> Shape:
    """Returns the kernel's shape before EinsumDense flattened it to a matrix.

    It is known from the layer's config, or else from its bias. The bias has the axes
    of the outputs, but the first of them can be missing and the last can have size 1.
    Such an axis takes the outputs that the others leave.
    """
    for shape in facts.shapes.values():
        if math.prod(shape) == inputs * outputs:
            return shape
    bias = parts.bias.shape if parts.bias is not None else ()
    left, remainder = divmod(outputs, math.prod(bias) or 1)
    if remainder or not bias or left == outputs:
        return (inputs, outputs)
    if left == 1:
        return (inputs, *bias)
    if bias[-1] == 1:
        return (inputs, math.prod(bias), left)
    return (inputs, left, *bias)


def _floats(array: Stored) -> Float32s:
    return array.read().astype(np.float32)


def _half(count: int) -> int:
    """Returns the number of bytes with two codes each, rounded up."""
    return -(-count // 2)
