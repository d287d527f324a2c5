"""The margin loss of a kernel as training sees it, with its gradient in closed form."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wm.embedding.loss.kernel_projection import SMALLEST_RMS, KernelProjection
from keras_wm.embedding.loss.moments import corrected, noise_correction

# A kernel of at most this many weights gets the loss in every step. A kernel of N times
# as many gets it in one of N steps, so that a step costs the same on average, but at
# least in one of the second number of steps.
_EVERY_STEP, _LONGEST_INTERVAL = 2**17, 8.0
# The choice reads the weights where the rows and columns of a grid of at most 128 x 128
# cross. Each gives a number below 2^10, so the sum is below 2^24, which a float
# represents exactly: it does not depend on the order of the summands.
_GRID = 128
_NUMBERS = 2**10
# Used as the root mean square of a kernel of zeros, to divide its weights by it.
_TINY = 1e-30
# Units per root mean square. A float32 there has a precision of 2^23 to 2^24 units.
_RESOLUTION = 2.0**22
# An odd factor, 0.618 of the numbers, which takes neighbouring sums far apart.
_FACTOR = 633
# The share of a bit's gradient that moves one weight in a step without the loss.
_NUDGE = 2.0**-4


def steps_between(weights: int) -> float:
    """Returns k: a kernel of so many weights gets the loss in one of k steps.

    It is a ratio of whole numbers that the choice can meet exactly.

    Args:
        weights: The number N of weights.
    """
    interval = min(max(weights / _EVERY_STEP, 1.0), _LONGEST_INTERVAL)
    return _NUMBERS / round(_NUMBERS / interval)


def margin_loss(
    kernel: Any, projection: KernelProjection, interval: float = 1.0
) -> Any:
    r"""Returns the margin loss of a kernel; of a large one in some of the steps only.

    The gradient is that of the sum of \(\max(0, m - z_j)^2\), corrected as described in
    `keras_wm.embedding.loss.moments`.

    With an interval k above 1, the kernel gets the loss in one of k steps on average.
    It is then multiplied by the root of k, and 0 in the other steps. The mean square of
    its gradient, which Adam divides by, is therefore the same as with the loss in every
    step. With a factor of k, the mean gradient would be the same, but Adam would train
    the host's own weights more slowly where their gradients are small: in a dense
    kernel of 512 x 512, the kurtosis of the weights fell by 1.3 %, four standard
    deviations between seeds.

    The choice is a hash of weights of the kernel. All replicas therefore make the same
    choice, training that resumes repeats it, and so do steps that accumulate the
    gradient of one update.

    Args:
        kernel: The kernel W, a float tensor of any rank, filters last.
        projection: The projection of kernels of its shape.
        interval: k. Defaults to 1, the loss in every step.

    Returns:
        Scalar tensor.
    """
    root = sqrt(interval)

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def loss(weights: Any) -> Any:
        def measured() -> Any:
            return _loss_and_slopes(weights, projection)

        def gradient(slopes: Any, noise: Any, factor: Any) -> Any:
            return corrected(
                projection.gradient(factor * slopes),
                factor * noise,
                weights,
                projection.keyed,
                projection.bands,
            )

        if interval == 1.0:
            value, slopes, noise = measured()

            def whole(*args: Any, upstream: Any = None) -> Any:
                return gradient(slopes, noise, _given(args, upstream))

            return value, whole

        is_chosen, place, move = _choice(weights, interval)

        def nothing() -> Any:
            zeros = ops.zeros((projection.bits,), weights.dtype)
            return zeros[0], zeros, zeros[0]

        value, slopes, noise = _either(is_chosen, measured, nothing)

        def partial(*args: Any, upstream: Any = None) -> Any:
            factor = _given(args, upstream)
            return _either(
                is_chosen,
                lambda: gradient(slopes, noise, root * factor),
                lambda: ops.scatter(
                    ops.cast(place, "int32"),
                    ops.reshape(factor * move, (1,)),
                    projection.shape,
                ),
            )

        return root * value, partial

    return loss(ops.reshape(kernel, projection.shape))


def _loss_and_slopes(weights: Any, projection: KernelProjection) -> Any:
    """Returns the loss, the slope of each bit's output, and the noise to remove."""
    y, norm = projection.signed_outputs(weights)
    z = y / norm
    shortfall = ops.relu(projection.margin - z)
    noise = ops.sum(2.0 * shortfall * noise_correction(z, projection.margin))
    return ops.sum(ops.square(shortfall)), -2.0 * shortfall / norm, noise


def _choice(weights: Any, interval: float) -> Any:
    """Returns whether a step gets the loss, and a nudge for a step without it.

    The hash of the weights on the grid is a whole number below `_NUMBERS`. Any change
    of one of these weights changes it, also one in the last digits. A step gets the
    loss if its hash is in the first k-th of the numbers.

    The nudge moves one of these weights. Without it, a kernel that gets no gradient
    from the task, and that one choice leaves without the loss, would never change, and
    neither would the choice. The hash selects the weight. Each weight has its own
    direction, so no two moves cancel each other, which would be repeated for ever.

    Args:
        weights: The kernel, shape `(M, L)`.
        interval: k.

    Returns:
        Tuple of a scalar bool, the place of the weight that is moved, shape `(1, 2)`,
        and its gradient, a scalar.
    """
    row_stride, column_stride = (-(-length // _GRID) for length in weights.shape)
    read = weights[::row_stride, ::column_stride]
    rows, columns = read.shape
    on: Any = ops
    if keras.backend.backend() == "torch":
        # PyTorch runs each operation on its own, which takes ten times as long as the
        # same operation of NumPy, and a step in Python has to know the choice anyway.
        read, on = ops.convert_to_numpy(read), np
    rms = on.sqrt(on.mean(on.square(read)))
    units = on.floor(read * (_RESOLUTION / on.maximum(rms, _TINY)))
    total = on.sum(units - on.floor(units / _NUMBERS) * _NUMBERS)
    number = total % _NUMBERS * _FACTOR % _NUMBERS
    row, column = number // columns % rows, number % columns
    place = on.stack([row * row_stride, column * column_stride])
    direction = 1.0 - 2.0 * (column % 2)
    move = direction * _NUDGE / on.maximum(rms, SMALLEST_RMS)
    return number * interval < _NUMBERS, on.reshape(place, (1, 2)), move


def _either(is_first: Any, first: Callable[[], Any], second: Callable[[], Any]) -> Any:
    """Returns the result of one of two functions, also where compiled steps choose."""
    if isinstance(is_first, np.bool_):
        return first() if is_first else second()
    return ops.cond(is_first, first, second)


def _given(args: tuple[Any, ...], upstream: Any) -> Any:
    """Returns the upstream gradient, which PyTorch gives by name, the others do not."""
    return args[0] if upstream is None else upstream
