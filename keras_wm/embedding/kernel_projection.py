"""What a key reads from kernels of one shape, as constants of a Keras graph."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_wm.scheme.capacity import (
    NEGLIGIBLE_SHARE,
    UNSEEN_SHARE,
    readable_weights,
    share,
    unseen_bits,
    unseen_margin,
)
from keras_wm.scheme.key import WatermarkKey

Loss = Literal["margin", "crossentropy"]
Float32 = NDArray[np.float32]

# A score is y / |u|. Below this root mean square of the weights |u| counts as if the
# weights had it, so that a kernel of zeros gets a gradient, and a finite one.
SMALLEST_RMS = 1e-4


@dataclass(frozen=True)
class KernelProjection:
    """The scheme's linear part: a kernel in, one signed output for each bit out.

    Attributes:
        shape: M and L of the kernel.
        matrix: s_j x_j, over the row's spread for the margin, of shape
            `(ceil(T / G), M, G)`; zeros behind T.
        weights: a, transposed, of shape `(L, G)`.
        bits: T.
        margin: m, 0 for the cross-entropy.
        negligible: Whether a mark of this margin does not widen the weights enough to
            be held back.
        smallest_norm: What |u| counts as at least.
    """

    shape: tuple[int, int]
    matrix: Float32
    weights: Float32
    bits: int
    margin: float
    negligible: bool
    smallest_norm: float

    @classmethod
    def for_shape(
        cls, key: WatermarkKey, shape: tuple[int, ...], loss: Loss, margin: float | None
    ) -> KernelProjection:
        size, count = key.check_shape(shape)
        signs = 2.0 * key.message - 1.0
        matrix = signs[:, None] * key.matrix(size)
        if loss == "margin":
            matrix /= np.reshape(key.spread(size), (-1, 1))
        weights = key.filter_weights(count)
        length = float(np.linalg.norm(weights[0]))
        room = _room_for(key, size, count, loss, margin)
        taken = share(key.bits, key.filters, size, count, room) ** 2
        return cls(
            shape=(size, count),
            matrix=_grouped(matrix, key.groups).astype(np.float32),
            weights=weights.T.astype(np.float32),
            bits=key.bits,
            margin=room,
            negligible=taken < NEGLIGIBLE_SHARE,
            smallest_norm=SMALLEST_RMS * length * size**0.5,
        )

    def signed_outputs(self, kernel: Any) -> tuple[Any, Any]:
        """s_j y_j and the norm of u_j held constant, both of shape (T,)."""
        flat = ops.reshape(kernel, self.shape)
        # Products and sums in this order need no transposition: with one, XLA
        # lays the large product out for it, at five times the cost.
        filters = ops.matmul(flat, ops.cast(self.weights, kernel.dtype))
        outputs = ops.sum(ops.cast(self.matrix, kernel.dtype) * filters, axis=1)
        norms = ops.sqrt(ops.sum(ops.square(ops.stop_gradient(filters)), axis=0))
        norms = ops.broadcast_to(ops.maximum(norms, self.smallest_norm), outputs.shape)
        return self._by_bit(outputs), self._by_bit(norms)

    def _by_bit(self, grouped: Any) -> Any:
        """(ceil(T / G), G) to (T,): bit j is in group j % G."""
        return ops.reshape(grouped, (-1,))[: self.bits]


@contextmanager
def without_capacity_warnings() -> Iterator[None]:
    """Without warnings of full kernels, where they are meant to be full."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* bits in a kernel of ")
        yield


def _grouped(matrix: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    bits, size = matrix.shape
    rows = -(-bits // groups)
    padded = np.zeros((rows * groups, size))
    padded[:bits] = matrix
    return padded.reshape(rows, groups, size).transpose(0, 2, 1)


def _room_for(
    key: WatermarkKey, size: int, count: int, loss: Loss, margin: float | None
) -> float:
    """The margin to train for; warns where the bits ask for more than the room."""
    room = unseen_margin(key.bits, key.filters, size, count)
    at_room = f"{key.bits} bits in a kernel of {size} x {count} weights"
    if loss == "crossentropy":
        if key.bits > readable_weights(size, count, key.groups):
            warnings.warn(
                f"{at_room} are more than the weights that are read: some will be "
                "lost. Use fewer bits or a larger kernel.",
                stacklevel=2,
            )
        return 0.0
    visible = room < 1.0
    if margin is not None:
        asked_share = share(key.bits, key.filters, size, count, margin)
        visible = asked_share > 2 * UNSEEN_SHARE[key.filters]
    if visible:
        asked = room if margin is None else margin
        warnings.warn(
            f"{at_room} leave room for a margin of {room:.2g} standard deviations; "
            f"at {asked:.2g} the mark will be weak or visible. "
            f"{unseen_bits(key.filters, size, count)} bits fit unseen at 4.",
            stacklevel=2,
        )
    return room if margin is None else margin
