"""The part of a key that belongs to one kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from keras_wm.scheme.anchor import Anchor
from keras_wm.scheme.array_source import ArraySource
from keras_wm.scheme.recipient_source import RecipientSource
from keras_wm.scheme.secret_source import SecretSource
from keras_wm.scheme.streams import Place
from keras_wm.utils.arrays import Floats, read_only

Source = SecretSource | RecipientSource | ArraySource

# The factor of the normal tail that bounds the tail of the sum of the scores, for each
# kind of projection whose scores have such a bound. For weighted sums of independent
# signs it is 1 / (4 P[N(0, 1) >= sqrt(2)]), whatever the weights are (Bentkus and
# Dzindzalieta 2015, A tight Gaussian bound for weighted sums of Rademacher random
# variables).
_TAIL_FACTORS = {"random": 1.0, "sums": 3.1787}

# A larger array is derived again each time, so that one kernel of gigabytes does not
# empty the cache.
_MAX_ARRAY_BYTES = 32 * 2**20
_MAX_TOTAL_BYTES = 256 * 2**20

_cache: LRUCache[Hashable, NDArray[Any]] = LRUCache(
    _MAX_TOTAL_BYTES, getsizeof=lambda array: array.nbytes
)
_lock = threading.Lock()


class KernelKey:
    """Message, projection and filter weights for kernels of one shape.

    `WatermarkKey.for_shape` returns it. All arrays are read-only.

    Attributes:
        place: Slot, shape and anchor that the arrays are derived for.
        anchor: The anchor that the kernel is read through, or `None`.
        size: M, the weights per filter.
        count: L, the number of filters.
        bits: T, the length of the message.
        groups: G, the number of vectors that the bits are read from.
        in_blocks: Whether bit j is read from the j-th block of the flattened kernel,
            as in a recipient's key, in place of a combination of the filters.
        tail_factor: The tail of the sum of the scores in an unmarked kernel is at most
            this many times that of a normal deviate: 1 if the sum is exactly normal,
            `None` if there is no such bound.
    """

    def __init__(
        self, source: Source, commitment: str, place: Place, anchor: Anchor | None
    ) -> None:
        self._source = source
        self._commitment = commitment
        self.place = place
        self.anchor = anchor
        self.size, self.count = place.size, place.filters
        self.bits = source.bits
        self.groups = source.groups
        self.in_blocks = isinstance(source, RecipientSource)
        self.tail_factor = _TAIL_FACTORS.get(source.projection)

    @property
    def message(self) -> NDArray[np.uint8]:
        """b, the bits that are embedded: 0 and 1, shape `(T,)`."""
        name = ("message", *self._name)
        return _cached(name, lambda: self._source.message(self.place))

    @property
    def signs(self) -> Floats:
        """s = 2 b - 1, shape `(T,)`."""
        return self.message * np.float64(2) - 1

    @property
    def matrix(self) -> Floats:
        """X, the projection, shape `(T, M)`, or `(T, N // T)` in blocks."""
        return _cached(("matrix", *self._name), lambda: self._rows(0, self.bits))

    @property
    def filter_weights(self) -> Floats:
        """a, shape `(G, L)`. Bit j is read through row `j % G`.

        Raises:
            TypeError: If the key reads blocks.
        """
        if isinstance(self._source, RecipientSource):
            raise TypeError("A recipient's key reads blocks, not filters.")
        source = self._source
        name = ("filters", *self._name)
        return _cached(name, lambda: source.filter_weights(self.place))

    @property
    def spread(self) -> float | Floats:
        """The standard deviation of x_j . v for a random unit vector v.

        It is an array of shape `(T,)` for an explicit key.
        """
        return self._source.spread(self.size)

    @property
    def row_length(self) -> int:
        """Number of columns of X: M, or the number N // T of weights in a block."""
        return self.size * self.count // self.bits if self.in_blocks else self.size

    def blocks(self, flat: NDArray[Any]) -> NDArray[Any]:
        """Returns the blocks of a kernel, shape `(T, N // T)`.

        Args:
            flat: The kernel, shape `(M, L)`. Its last N mod T weights are not read.
        """
        read = self.bits * self.row_length
        return flat.reshape(-1)[:read].reshape(self.bits, self.row_length)

    def row_blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yields X in blocks of rows, so that a large X is never in memory as a whole.

        Yields:
            The number of the block's first row, and the rows. Unless each bit is read
            from its own block, the first row is a multiple of G.
        """
        row_bytes = 8 * self.row_length
        if row_bytes * self.bits <= _MAX_ARRAY_BYTES:
            yield 0, self.matrix
            return
        unit = 1 if self.in_blocks else self.groups
        step = unit * max(1, _MAX_ARRAY_BYTES // (row_bytes * unit))
        for first in range(0, self.bits, step):
            last = min(first + step, self.bits)
            yield first, self._rows(first, last)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KernelKey):
            return NotImplemented
        return self._name == other._name

    def __hash__(self) -> int:
        return hash(self._name)

    @property
    def _name(self) -> tuple[str, Place]:
        return self._commitment, self.place

    def _rows(self, first: int, last: int) -> Floats:
        return self._source.rows(self.place, first, last)


def _cached(name: Hashable, derive: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Returns an array from the cache, or derives it.

    Args:
        name: Name of the array. It must determine the array's values.
        derive: Function that derives the array.

    Returns:
        The array, read-only.
    """
    with _lock:
        if name in _cache:
            return _cache[name]
    array = read_only(derive())
    if array.nbytes <= _MAX_ARRAY_BYTES:
        with _lock:
            _cache[name] = array
    return array
