"""The streams of bytes that everything about a kernel is derived from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_wm.scheme.secret import Secret


class Place(NamedTuple):
    """The kernel that arrays are derived for.

    Attributes:
        slot: Number of the slot that the kernel is marked in.
        size: M, the weights per filter.
        filters: L, the number of filters.
        anchor: Digest of the anchor that the kernel is read through, or an empty
            string.
    """

    slot: int
    size: int
    filters: int
    anchor: str = ""


class KernelStreams:
    """The streams of all kernels, derived from the root of a key.

    Args:
        root: The root of the key.
    """

    def __init__(self, root: Secret) -> None:
        self._root = root
        self._seeds: dict[int, Secret] = {}

    def expand(self, size: int, label: str, place: Place, *parameters: int) -> bytes:
        """Returns the first bytes of a stream of a kernel in its slot.

        Args:
            size: Number of bytes.
            label: Purpose of the stream.
            place: The kernel.
            *parameters: Values that the derived quantity depends on.
        """
        seed = self.seed(place.slot)
        if place.anchor:
            seed = seed.root("anchor", place.anchor)
        return seed.expand(size, label, place.size, place.filters, *parameters)

    def seed(self, slot: int) -> Secret:
        """Returns the seed of a slot."""
        if slot not in self._seeds:
            self._seeds[slot] = self._root.derive("slot", slot)
        return self._seeds[slot]

    def slot_commitment(self, slot: int, anchor: str = "") -> str:
        """Returns 64 hexadecimal digits that determine a slot's seed and anchor."""
        digest = [anchor] if anchor else []
        return self.seed(slot).commit("slot", slot, *digest)

    def message(self, bits: int, place: Place) -> NDArray[np.uint8]:
        """Returns b, shape `(T,)`: coin flips."""
        stream = self.expand(-(-bits // 8), "message", place)
        return np.unpackbits(np.frombuffer(stream, np.uint8), count=bits)


class DerivedSource:
    """The part of a key's source that depends on nothing but its streams.

    Attributes:
        bits: T, the length of the message.
    """

    bits: int

    def slot_commitment(self, slot: int, anchor: str = "") -> str:
        """Returns 64 hexadecimal digits that determine a slot's seed and anchor."""
        return self._streams.slot_commitment(slot, anchor)

    def slot_seed(self, slot: int) -> Secret:
        """Returns the seed of a slot, from which no other slot can be computed."""
        return self._streams.seed(slot)

    def message(self, place: Place) -> NDArray[np.uint8]:
        """Returns b, shape `(T,)`: coin flips."""
        return self._streams.message(self.bits, place)

    @property
    def _streams(self) -> KernelStreams:
        raise NotImplementedError
