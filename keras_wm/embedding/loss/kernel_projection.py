"""The projection of a kernel to one output per bit, as constants of a Keras graph."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_wm.embedding.loss.bands import Bands
from keras_wm.embedding.loss.constants import outside_of_graphs
from keras_wm.scheme.anchor import Anchor
from keras_wm.scheme.capacity import (
    UNSEEN_SHARE,
    readable_weights,
    share,
    unseen_bits,
    unseen_margin,
)
from keras_wm.scheme.key import WatermarkKey

Loss = Literal["margin", "crossentropy"]

# A score is y / |u|. If the root mean square of the weights is below this value, |u| is
# computed as if they had it. A kernel of zeros then has a gradient, and a finite one.
SMALLEST_RMS = 1e-4


@dataclass(frozen=True)
class KernelProjection:
    r"""The linear part of the scheme: a kernel in, one signed output per bit out.

    With the kernel W as a matrix of M x L weights, the output of bit j is
    \(s_j y_j = s_j \, x_j \cdot W a_j\) (see docs/glossary.md). Bit j uses the filter
    weights of group j mod G. With a recipient's key, it uses the j-th block of the
    flattened kernel in place of \(W a_j\).

    Attributes:
        shape: M and L of the kernel.
        matrix: \(s_j x_j\), for the margin loss divided by the spread of row j. Shape
            `(ceil(T / G), M, G)`, with zeros after the last bit; `(T, N // T)` in
            blocks.
        filter_weights: The G vectors a, transposed, shape `(L, G)`. `None` in blocks.
        bits: The number of bits T.
        keyed: Whether the filter weights are keyed, so that the mark is not in the
            mean filter.
        margin: The margin m, 0 for the cross-entropy.
        smallest_norm: Lower bound of the norm of what a bit is read from.
        anchor: The anchor that the kernel is read through, or `None`. Its matrix A
            takes the place of W by A W.
    """

    shape: tuple[int, int]
    matrix: NDArray[np.float32]
    filter_weights: NDArray[np.float32] | None
    bits: int
    keyed: bool
    margin: float
    smallest_norm: float
    anchor: Anchor | None = None

    @classmethod
    def for_shape(
        cls, key: WatermarkKey, shape: tuple[int, ...], loss: Loss, margin: float | None
    ) -> KernelProjection:
        """Derives the projection of a kernel from a key.

        Args:
            key: The key.
            shape: Shape of the kernel, filters last.
            loss: `"margin"` or `"crossentropy"`.
            margin: The margin m, or `None` for the largest one that the kernel can
                hold unseen.

        Returns:
            A `KernelProjection`. Warns if the kernel is too small for the message.

        Raises:
            ValueError: If the kernel cannot carry the message.
        """
        mark = key.for_shape(shape)
        size, count = mark.size, mark.count
        matrix = mark.signs[:, None] * mark.matrix
        if loss == "margin":
            matrix /= np.reshape(mark.spread, (-1, 1))
            margin = _checked_margin(key, size, count, margin)
        else:
            _check_readable_weights(key, size, count)
            margin = 0.0
        if mark.in_blocks:
            weights, length = None, mark.row_length**0.5
        else:
            matrix = _grouped(matrix, key.groups)
            weights = mark.filter_weights.T.astype(np.float32)
            length = float(np.linalg.norm(weights[:, 0])) * size**0.5
        return cls(
            shape=(size, count),
            matrix=matrix.astype(np.float32),
            filter_weights=weights,
            bits=key.bits,
            keyed=key.filters == "keyed",
            margin=margin,
            smallest_norm=SMALLEST_RMS * length,
            anchor=mark.anchor,
        )

    def signed_outputs(self, kernel: Any) -> tuple[Any, Any]:
        r"""Returns the signed outputs of all bits and their norms.

        Args:
            kernel: Float tensor of the shape that the projection was made for.

        Returns:
            Two tensors of shape `(T,)`: \(s_j y_j\) and \(\lVert W a_j \rVert\), or
            the norm of the block. The norm has no gradient.
        """
        if self.filter_weights is None:
            return self._outputs_of_blocks(kernel)
        flat = ops.reshape(kernel, self.shape)
        # Products and sums in this order need no transposition. With one, XLA would
        # choose the layout of the large product for it, at five times the cost.
        filters = ops.matmul(flat, ops.cast(self._weights_tensor, kernel.dtype))
        # A acts on a few combinations of the filters, and not on the whole kernel.
        filters = self.bands.anchored(filters)
        outputs = ops.sum(ops.cast(self._matrix_tensor, kernel.dtype) * filters, axis=1)
        norms = ops.sqrt(ops.sum(ops.square(ops.stop_gradient(filters)), axis=0))
        norms = ops.broadcast_to(ops.maximum(norms, self.smallest_norm), outputs.shape)
        return self._by_bit(outputs), self._by_bit(norms)

    def gradient(self, slopes: Any) -> Any:
        r"""Returns the gradient of \(\sum_j c_j s_j y_j\) with respect to the kernel.

        Args:
            slopes: The factors c, shape `(T,)`.

        Returns:
            Tensor of shape `(M, L)`.
        """
        matrix = ops.cast(self._matrix_tensor, slopes.dtype)
        if self.filter_weights is None:
            read = ops.reshape(matrix * ops.reshape(slopes, (-1, 1)), (-1,))
            unread = prod(self.shape) - self.matrix.size
            return self.bands.anchored(
                ops.reshape(ops.pad(read, (0, unread)), self.shape)
            )
        rounds, _, groups = self.matrix.shape
        padded = ops.pad(slopes, (0, rounds * groups - self.bits))
        filters = ops.sum(matrix * ops.reshape(padded, (rounds, 1, groups)), axis=0)
        weights = ops.cast(self._weights_tensor, slopes.dtype)
        # A is symmetric.
        gradient = ops.matmul(self.bands.anchored(filters), ops.transpose(weights))
        # On PyTorch, Keras multiplies double precision in single precision.
        return ops.cast(gradient, slopes.dtype)

    @cached_property
    def bands(self) -> Bands:
        """The bands of the anchor's directions."""
        return Bands(self.anchor, self.shape[0])

    @cached_property
    def _matrix_tensor(self) -> Any:
        return outside_of_graphs(self.matrix)

    @cached_property
    def _weights_tensor(self) -> Any:
        return outside_of_graphs(self.filter_weights)

    def _outputs_of_blocks(self, kernel: Any) -> tuple[Any, Any]:
        """Returns what `signed_outputs` does, for a recipient's key."""
        flat = self.bands.anchored(ops.reshape(kernel, self.shape))
        read = ops.reshape(flat, (-1,))[: self.matrix.size]
        blocks = ops.reshape(read, self.matrix.shape)
        outputs = ops.sum(ops.cast(self._matrix_tensor, kernel.dtype) * blocks, axis=1)
        norms = ops.sqrt(ops.sum(ops.square(ops.stop_gradient(blocks)), axis=1))
        return outputs, ops.maximum(norms, self.smallest_norm)

    def _by_bit(self, grouped: Any) -> Any:
        """Flattens `(ceil(T / G), G)` to `(T,)`: bit j is in group j mod G."""
        return ops.reshape(grouped, (-1,))[: self.bits]


@contextmanager
def without_capacity_warnings() -> Iterator[None]:
    """Silences the warnings about too small kernels, for kernels filled on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* bits in a kernel of ")
        yield


def _grouped(matrix: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """Pads rows `(T, M)` with zeros and reshapes them to `(ceil(T / G), M, G)`."""
    bits, size = matrix.shape
    padded = np.pad(matrix, ((0, -bits % groups), (0, 0)))
    return padded.reshape(-1, groups, size).transpose(0, 2, 1)


def _checked_margin(
    key: WatermarkKey, size: int, count: int, margin: float | None
) -> float:
    """Returns the margin to train for; warns if the mark will be weak or visible."""
    has_anchor = key.anchor is not None
    largest_unseen = unseen_margin(key.bits, key.filters, size, count, has_anchor)
    if margin is None:
        margin = largest_unseen
        too_small = largest_unseen < 1.0
    else:
        mark_share = share(key.bits, key.filters, size, count, margin)
        too_small = mark_share > 2 * UNSEEN_SHARE[key.filters]
    if too_small:
        warnings.warn(
            f"{_bits_in_kernel(key, size, count)} leave room for a margin of "
            f"{largest_unseen:.2g} standard deviations; at {margin:.2g} the mark will "
            f"be weak or visible. {unseen_bits(key.filters, size, count)} bits fit "
            "unseen at 4.",
            stacklevel=3,
        )
    return margin


def _check_readable_weights(key: WatermarkKey, size: int, count: int) -> None:
    """Warns if a message has more bits than the key reads weights."""
    weights = readable_weights(size, count, key.groups)
    if key.bits > weights:
        warnings.warn(
            f"{_bits_in_kernel(key, size, count)} exceed the {weights} weights that "
            "the key reads: some bits will be lost. Use fewer bits or a larger kernel.",
            stacklevel=3,
        )


def _bits_in_kernel(key: WatermarkKey, size: int, count: int) -> str:
    return f"{key.bits} bits in a kernel of {size} x {count} weights"
