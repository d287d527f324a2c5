"""The effective kernels of quantized layers, as Keras's own layers compute them.

Each way of reading is one function from the parts to the floats, with the shape known
beforehand. Where types and shapes leave several open, each gives a kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.config.layer_facts import LayerFacts
from keras_wm.files.contents import Kernel
from keras_wm.files.kernels.quantized_parts import Parts
from keras_wm.files.limits import Limits
from keras_wm.utils.text import printable

Floats = NDArray[np.float32]
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Reading:
    """One way of reading the parts."""

    mode: str
    shape: tuple[int, ...]
    read: Callable[[], Floats]
    how: str = ""


def kernels_of_quantized(
    layer: str, parts: Parts, facts: LayerFacts, limits: Limits
) -> list[Kernel]:
    """The kernels that parts of a quantized layer may be.

    Args:
        layer: The layer's name.
        parts: The arrays that make up the kernel.
        facts: What the layer's config tells.
        limits: What a kernel may take.

    Returns:
        The kernels; none where the arrays fit nothing that Keras writes.
    """
    readings = list(_readings(parts, facts))
    if any(reading.mode == facts.mode for reading in readings):
        readings = [reading for reading in readings if reading.mode == facts.mode]
    if any(reading.shape in facts.shapes.values() for reading in readings):
        known = facts.shapes.values()
        readings = [reading for reading in readings if reading.shape in known]
    return [
        Kernel(
            layer=printable(layer, most=1000),
            variable=printable(parts.variable),
            path=printable(parts.codes.path, most=1000),
            shape=reading.shape,
            dtype=parts.codes.dtype,
            read=_bounded(reading, parts, limits),
            note=f"{reading.mode}, scales applied{reading.how}",
        )
        for reading in readings
    ]


def _bounded(
    reading: _Reading, parts: Parts, limits: Limits
) -> Callable[[], NDArray[np.floating]]:
    def read() -> NDArray[np.floating]:
        size = 4 * math.prod(reading.shape)
        if size > limits.array_bytes:
            raise UnsafeFileError(
                f"'{printable(parts.codes.path)}' unpacks to {size:,} bytes, more than "
                f"Limits.array_bytes={limits.array_bytes:,}."
            )
        # A scale of zero makes weights that are not finite, which is for others to see.
        with np.errstate(all="ignore"):
            return reading.read().reshape(reading.shape)

    return read


def _readings(parts: Parts, facts: LayerFacts) -> Iterator[_Reading]:
    codes, scale = parts.codes.shape, parts.scale.shape
    shapes = tuple(facts.shapes.values())
    if parts.codes.dtype == "uint8":
        yield from _by_output(parts, shapes)
    elif parts.zero is not None and parts.groups is not None:
        yield from _by_group(parts, shapes)
    elif parts.zero is None:
        yield from _int8(parts, facts)
        if len(codes) == 2 and len(scale) == 1:
            yield from _int4(parts, shapes)
        elif len(codes) > 2:
            yield from _int4_of_many_axes(parts, facts)


def _int8(parts: Parts, facts: LayerFacts) -> Iterator[_Reading]:
    """W = codes / scale."""
    shape = parts.codes.shape
    for axes in _scale_axes(parts, facts):

        def read(axes: tuple[int, ...] = axes) -> Floats:
            return parts.codes.read().astype(np.float32) / _spread(parts, axes)

        last = axes == tuple(range(len(shape) - len(axes), len(shape)))
        yield _Reading("int8", shape, read, "" if last else f" along axes {axes}")


def _int4_of_many_axes(parts: Parts, facts: LayerFacts) -> Iterator[_Reading]:
    """W = codes / scale, two codes a byte, as Keras packed EinsumDense up to 3.13."""
    shape = parts.codes.shape
    for axes in _scale_axes(parts, facts):
        packed = next((axis for axis in range(len(shape)) if axis not in axes), None)
        if packed is None:
            continue
        for length in (2 * shape[packed], 2 * shape[packed] - 1):

            def read(
                axes: tuple[int, ...] = axes, packed: int = packed, length: int = length
            ) -> Floats:
                codes = _unpacked(parts.codes.read(), packed, length)
                return codes / _spread(parts, axes)

            unpacked = (*shape[:packed], length, *shape[packed + 1 :])
            how = f", {length} entries of axis {packed} packed in pairs"
            yield _Reading("int4", unpacked, read, how)


def _scale_axes(parts: Parts, facts: LayerFacts) -> list[tuple[int, ...]]:
    """The axes of the codes along which the scales may differ, in the scales' order.

    Scales have the axes of the layer's output: axes of size 1 stand among them, and
    the others may come in another order, which only an equation tells.
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


def _spread(parts: Parts, axes: tuple[int, ...]) -> Floats:
    """The scales as an array that divides the codes, along those axes of theirs."""
    sizes = [size for size in parts.scale.shape if size > 1]
    values = parts.scale.read().astype(np.float32).reshape(sizes)
    rank = len(parts.codes.shape)
    return np.expand_dims(
        values.transpose(np.argsort(axes)),
        [axis for axis in range(rank) if axis not in axes],
    )


def _int4(parts: Parts, shapes: Shapes) -> Iterator[_Reading]:
    """W = codes / scale, two codes a byte, along the last axis or the first."""
    (rows, columns), (count,) = parts.codes.shape, parts.scale.shape
    outputs = [(count, True)] if columns == -(-count // 2) else []
    if rows == count:
        # Embeddings have a scale a row, and an odd number of columns leaves a half.
        outputs += [(2 * columns, False), (2 * columns - 1, False)]
    for width, by_column in outputs:

        def read(width: int = width, by_column: bool = by_column) -> Floats:
            scale = parts.scale.read().astype(np.float32)
            scale = scale.reshape((1, -1) if by_column else (-1, 1))
            return np.divide(_unpacked(parts.codes.read(), 1, width), scale)

        shape = (
            _output_shape(parts, shapes, rows, width) if by_column else (rows, width)
        )
        yield _Reading("int4", shape, read)
    if columns == count:
        # As Keras packed up to 3.13, and still packs the way back of embeddings.
        for height in (2 * rows, 2 * rows - 1):

            def read_down(height: int = height) -> Floats:
                scale = parts.scale.read().astype(np.float32)
                return np.divide(_unpacked(parts.codes.read(), 0, height), scale)

            how = f", {height} inputs packed in pairs"
            yield _Reading("int4", (height, count), read_down, how)


def _by_group(parts: Parts, shapes: Shapes) -> Iterator[_Reading]:
    """W = (codes - zero) * scale, both of the group that an input is in."""
    if parts.zero is None or parts.groups is None:
        return
    (rows, columns), (inputs,) = _matrix(parts.codes.shape), _flat(parts.groups.shape)
    first, last = _matrix(parts.scale.shape)
    if parts.zero.shape != parts.scale.shape:
        return
    if rows == inputs and columns == -(-last // 2):
        shape = _output_shape(parts, shapes, rows, last)
        yield _Reading("int4", shape, lambda: _grouped(parts, 1, last, 0))
    elif rows == first and columns == -(-inputs // 2):
        shape = (rows, inputs)
        yield _Reading("int4", shape, lambda: _grouped(parts, 1, inputs, 1))
    elif columns == last and rows == -(-inputs // 2):
        shape = (inputs, columns)
        yield _Reading("int4", shape, lambda: _grouped(parts, 0, inputs, 0))


def _by_output(parts: Parts, shapes: Shapes) -> Iterator[_Reading]:
    """GPTQ and AWQ: as by group, but stored with the outputs first, and unsigned."""
    if parts.groups is None:
        return
    (rows, inputs), (count,) = _matrix(parts.codes.shape), _flat(parts.groups.shape)
    outputs, _ = _matrix(parts.scale.shape)
    packed = rows == -(-outputs // 2) != outputs
    if inputs != count or not (packed or rows == outputs):
        return
    if parts.zero is not None and parts.zero.shape != parts.scale.shape:
        return

    def read() -> Floats:
        values = _grouped(parts, 0 if packed else None, outputs, 1).T
        if parts.input_scales is not None:
            values = values / parts.input_scales.read().astype(np.float32)[:, None]
        return values

    mode = "gptq" if parts.input_scales is None else "awq"
    # A constant for each filter and group may be missing then.
    how = "" if parts.zero is not None else ", half the range for the lost zeros"
    yield _Reading(mode, _output_shape(parts, shapes, inputs, outputs), read, how)


def _grouped(parts: Parts, packed_axis: int | None, length: int, axis: int) -> Floats:
    """(codes - zero) * scale, with scale and zero taken by group along an axis."""
    assert parts.groups is not None  # noqa: S101 (its callers have looked)
    values = parts.codes.read()
    if packed_axis is None:
        floats = values.astype(np.float32)
    else:
        floats = _unpacked(values, packed_axis, length)
    groups = parts.groups.read()
    count = parts.scale.shape[axis]
    if not ((groups >= 0) & (groups < count)).all():
        raise ModelFileError(
            f"'{printable(parts.groups.path)}' names groups that "
            f"'{printable(parts.scale.path)}', of {count}, does not have."
        )
    group = groups.astype(np.intp)
    scale = parts.scale.read().astype(np.float32).take(group, axis)
    if parts.zero is None:
        return (floats - _half_range(floats)) * scale
    return (floats - parts.zero.read().astype(np.float32).take(group, axis)) * scale


def _half_range(codes: Floats) -> float:
    """Half of as many values as the largest code tells that there are."""
    return 2.0 ** (int(codes.max()).bit_length() - 1)


def _unpacked(codes: NDArray[Any], axis: int, length: int) -> Floats:
    """Two codes of four bits from each byte, the low one first."""
    halves = np.stack([codes & 0x0F, (codes.view(np.uint8) >> 4)], axis=axis + 1)
    values = halves.astype(np.float32)
    if codes.dtype == np.int8:
        values -= 16 * (values > 7)
    shape = list(codes.shape)
    shape[axis] *= 2
    return values.reshape(shape)[(slice(None),) * axis + (slice(length),)]


def _output_shape(
    parts: Parts, shapes: Shapes, inputs: int, outputs: int
) -> tuple[int, ...]:
    """The kernel's shape before EinsumDense made two axes of many.

    Its config tells. So does its bias: it has the outputs' axes, but for the first or
    with 1 for the last, which take what it leaves of the outputs.
    """
    for shape in shapes:
        if math.prod(shape) == inputs * outputs:
            return shape
    bias = parts.bias.shape if parts.bias is not None else ()
    left, beyond = divmod(outputs, math.prod(bias) or 1)
    if beyond or not bias or left == outputs:
        return (inputs, outputs)
    if left == 1:
        return (inputs, *bias)
    if bias[-1] == 1:
        return (inputs, math.prod(bias), left)
    return (inputs, left, *bias)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], shape[1]) if len(shape) == 2 else (-1, -1)


def _flat(shape: tuple[int, ...]) -> tuple[int]:
    return (shape[0],) if len(shape) == 1 else (-1,)
