"""The margin loss of a kernel as training sees it, with its gradient in closed form."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_wm.embedding.kernel_projection import SMALLEST_RMS, KernelProjection
from keras_wm.embedding.moments import corrected, inverse, noise_correction

# A kernel of at most this many weights gets the loss in every step. A kernel of N times
# as many gets it in one of N steps, so that a step costs the same on average, but at
# least in one of the second number of steps. A mark that is only held, because its
# scores are near the margin, hardly needs the loss.
_EMBEDDED = (2**17, 8.0)
_HELD = (2**14, 32.0)
# The choice reads the weights where the rows and columns of a grid of at most 128 x 128
# cross. Each gives a number below 2^10, so the sum is below 2^24, which a float
# represents exactly: it does not depend on the order of the summands.
_GRID = 128
_NUMBERS = 2**10
# Units per root mean square. A float32 there has a precision of 2^23 to 2^24 units.
_RESOLUTION = 2.0**22
# An odd factor, 0.618 of the numbers, which takes neighbouring sums far apart.
_FACTOR = 633
# The share of a bit's gradient that moves one weight in a step without the loss.
_NUDGE = 2.0**-4


def steps_between(weights: int, *, is_held: bool = False) -> float:
    """Returns k: a kernel of so many weights gets the loss in one of k steps.

    It is a ratio of whole numbers that the choice can meet exactly.

    Args:
        weights: The number N of weights.
        is_held: Whether the mark is embedded already. Defaults to `False`.
    """
    every_step, longest = _HELD if is_held else _EMBEDDED
    interval = min(max(weights / every_step, 1.0), longest)
    return _NUMBERS / round(_NUMBERS / interval)


def margin_loss(
    kernel: Any, projection: KernelProjection, interval: float | Any = 1.0
) -> Any:
    r"""Returns the margin loss of a kernel; of a large one in some of the steps only.

    The gradient is that of the sum of \(\max(0, m - z_j)^2\), corrected as described in
    `keras_wm.embedding.moments`.

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
        interval: k, a float, or a scalar tensor that may change between the steps.
            Defaults to 1, the loss in every step.

    Returns:
        Scalar tensor.
    """
    root = ops.sqrt(ops.cast(interval, kernel.dtype))

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
            )

        if isinstance(interval, float) and interval == 1.0:
            value, slopes, noise = measured()

            def whole(*args: Any, upstream: Any = None) -> Any:
                return gradient(slopes, noise, _given(args, upstream))

            return value, whole

        number, rms = _hashed(weights)
        is_chosen = number * interval < _NUMBERS

        def nothing() -> Any:
            zeros = ops.zeros((projection.bits,), weights.dtype)
            return zeros[0], zeros, zeros[0]

        value, slopes, noise = ops.cond(is_chosen, measured, nothing)

        def partial(*args: Any, upstream: Any = None) -> Any:
            factor = _given(args, upstream)
            return ops.cond(
                is_chosen,
                lambda: gradient(slopes, noise, root * factor),
                lambda: _nudge(factor, number, rms, projection.shape),
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


def _hashed(weights: Any) -> Any:
    """Returns a hash of some weights, from 0 to `_NUMBERS` - 1, and their scale.

    Any change of one of the weights changes it, also one in the last digits.
    """
    rows, columns = _strides(weights.shape)
    read = weights[::rows, ::columns]
    rms = ops.sqrt(ops.mean(ops.square(read)))
    units = ops.floor(read * (inverse(rms) * _RESOLUTION))
    total = ops.mod(ops.sum(ops.mod(units, _NUMBERS)), _NUMBERS)
    return ops.mod(total * _FACTOR, _NUMBERS), rms


def _nudge(factor: Any, number: Any, rms: Any, shape: tuple[int, int]) -> Any:
    """Returns a gradient that moves one of the weights that the hash reads.

    Without it, a kernel that gets no gradient from the task, and that one choice leaves
    without the loss, would never change, and neither would the choice. The hash selects
    the weight. Each weight has its own direction, so no two moves cancel each other,
    which would be repeated for ever.
    """
    rows, columns = _strides(shape)
    width = -(-shape[1] // columns)
    number = ops.cast(number, "int32")
    row, column = number // width % -(-shape[0] // rows), number % width
    direction = 1.0 - 2.0 * ops.cast(column % 2, factor.dtype)
    move = direction * factor * _NUDGE / ops.maximum(rms, SMALLEST_RMS)
    place = ops.reshape(ops.stack([row * rows, column * columns]), (1, 2))
    return ops.scatter(place, ops.reshape(move, (1,)), shape)


def _strides(shape: tuple[int, int]) -> tuple[int, int]:
    """Returns the distances of the rows and of the columns of the grid."""
    rows, columns = shape
    return -(-rows // _GRID), -(-columns // _GRID)


def _given(args: tuple[Any, ...], upstream: Any) -> Any:
    """Returns the upstream gradient, which PyTorch gives by name, the others do not."""
    return args[0] if upstream is None else upstream
