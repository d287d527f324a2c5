"""Correspondence of the reference's channels with the suspect's channels."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.alignment.channel_graph import ChannelGraph, Part, WeightName
from keras_wm.errors import AlignmentError
from keras_wm.utils.arrays import Floats, Indices

Weights = Mapping[WeightName, Floats]

# Position of a reference channel that the suspect does not have.
MISSING = -1


class Correspondence:
    """The known positions and signs of the reference's channels in the suspect.

    Args:
        graph: Channel graph of the reference model.
        reference: Weights of the reference model. Only their shapes are used.
        suspect: The suspect's weights, by the same names. Only their shapes are used.

    Raises:
        AlignmentError: If the suspect has another architecture.

    Attributes:
        parts: The channel sets along each axis of each weight, see `ChannelGraph`.
        widths: Number of channels that the suspect has in each channel set.
        orders: For each channel set that is known, the suspect's position of each
            channel, -1 for a missing channel.
    """

    def __init__(
        self, graph: ChannelGraph, reference: Weights, suspect: Weights
    ) -> None:
        self._graph = graph
        self._shapes = {name: array.shape for name, array in reference.items()}
        self.parts = graph.parts
        self.widths = {
            set_id: self._width(set_id, suspect) for set_id in range(len(graph.sets))
        }
        self._check_shapes(reference, suspect)
        self.orders = {
            set_id: np.arange(channels.count)
            for set_id, channels in enumerate(graph.sets)
            if channels.fixed
        }
        # For each segment that is known: +1 or -1 of each channel.
        self._signs: dict[int, Floats] = {}
        self._digests: dict[tuple[str, int], bytes] = {}

    @property
    def changes(self) -> dict[str, int]:
        """Numbers of the suspect's channels that were changed.

        - `"moved"`: Channels at another position.
        - `"flipped"`: Channels with the opposite sign.
        - `"added"`: Additional neurons; negative if the suspect has fewer.
        """
        moved = [order != np.arange(len(order)) for order in self.orders.values()]
        flipped = [signs < 0 for signs in self._signs.values()]
        reference_count = sum(channels.count for channels in self._graph.sets)
        return {
            "moved": int(sum(map(np.sum, moved))),
            "flipped": int(sum(map(np.sum, flipped))),
            "added": sum(self.widths.values()) - reference_count,
        }

    def set_order(self, set_id: int, channels: Indices, positions: Indices) -> bool:
        """Sets the positions of a set's channels; the suspect lacks the others.

        Returns whether this changes what was known before.
        """
        order = np.full(self._graph.sets[set_id].count, MISSING)
        order[channels] = positions
        self.orders[set_id] = order
        return self._update_digest(("order", set_id), order)

    def set_signs(self, segment_id: int, signs: Floats) -> bool:
        """Sets the signs of a segment's channels; returns whether they have changed."""
        self._signs[segment_id] = signs
        return self._update_digest(("signs", segment_id), signs)

    def _update_digest(self, name: tuple[str, int], array: NDArray[Any]) -> bool:
        """Stores the digest of an order or of signs; returns whether it has changed."""
        digest = blake2b(array.tobytes(), digest_size=16).digest()
        before = self._digests.get(name)
        self._digests[name] = digest
        return digest != before

    def fingerprint(self, name: WeightName) -> Hashable:
        """Returns a value that changes with what is known of a weight's channels."""
        return tuple(
            self._digests.get(item)
            for axis in (-1, -2)
            for part in self.parts.get((name, axis), [])
            for item in (
                ("order", part.set_id),
                *(("signs", segment_id) for segment_id in part.segment_ids),
            )
        )

    def sign_known(self, segment_id: int) -> bool:
        """Returns whether a segment's signs are known or cannot be flipped."""
        segment = self._graph.segments[segment_id]
        return segment_id in self._signs or not segment.may_flip

    def signs(self, segment_ids: Iterable[int], count: int) -> Floats:
        """Returns the product of several segments' signs, +1 where unknown."""
        signs = np.ones(count)
        for segment_id in segment_ids:
            signs = signs * self._signs.get(segment_id, 1.0)
        return signs

    def restored(self, name: WeightName, axis: int, array: Floats) -> Floats | None:
        """Returns a suspect's weight with one axis in the reference's order and signs.

        Args:
            name: Name of the weight.
            axis: The axis to restore.
            array: The suspect's weight, whose other axis can already be restored.

        Returns:
            The array, with zeros for missing channels; `None` if the order is unknown.
        """
        parts = self.parts.get((name, axis))
        size = self._shapes[name][axis]
        if parts is None:
            return array if array.shape[axis] == size else None
        if any(part.set_id not in self.orders for part in parts):
            return None
        front = np.moveaxis(array, axis, 0)
        result = np.zeros((size, *front.shape[1:]))
        for index, part in enumerate(parts):
            order = self.orders[part.set_id]
            present = order != MISSING
            signs = self.signs(part.segment_ids, len(order))[present]
            sources = self.positions(parts, index, suspect=True)[:, order[present]]
            targets = self.positions(parts, index)[:, present]
            values = front[sources]
            result[targets] = values * signs.reshape(-1, *[1] * (values.ndim - 2))
        return np.moveaxis(result, 0, axis)

    def positions(
        self, parts: Sequence[Part], index: int, suspect: bool = False
    ) -> Indices:
        """Returns the positions of a part's channels along their axis.

        Args:
            parts: All parts of the axis.
            index: Index of the part.
            suspect: Whether to return them for the suspect, whose parts can be wider.

        Returns:
            Array of shape `(repeats, channels)`.
        """
        counts = [
            self.widths[part.set_id] if suspect else self._graph.sets[part.set_id].count
            for part in parts
        ]
        offsets = sum(counts) * np.arange(parts[index].repeats)
        return offsets[:, None] + sum(counts[:index]) + np.arange(counts[index])

    def _width(self, set_id: int, suspect: Weights) -> int:
        """Returns the number of channels that the suspect has in a channel set."""
        channels = self._graph.sets[set_id]
        widths = {
            suspect[name].shape[axis] // parts[0].repeats
            for (name, axis), parts in self.parts.items()
            # The length of an axis with several parts does not determine their widths.
            if name in suspect and [part.set_id for part in parts] == [set_id]
        }
        if len(widths) > 1 or (channels.fixed and widths - {channels.count}):
            raise AlignmentError(
                "Expected a network of the reference model's architecture, with layers "
                f"of {channels.count} neurons. Received layers of "
                f"{', '.join(map(str, sorted(widths)))} neurons in their place."
            )
        return widths.pop() if widths else channels.count

    def _check_shapes(self, reference: Weights, suspect: Weights) -> None:
        """Raises AlignmentError unless all shapes agree with the suspect's widths."""
        for name, array in reference.items():
            if name not in suspect:
                continue
            shape = suspect[name].shape
            expected = [
                sum(self.widths[part.set_id] for part in parts) * parts[0].repeats
                if (parts := self.parts.get((name, axis - array.ndim)))
                else size
                for axis, size in enumerate(array.shape)
            ]
            if list(shape) != expected:
                raise AlignmentError(
                    f"Expected {'/'.join(name)} of shape {tuple(expected)}, which fits "
                    f"the neighbouring layers. Received: shape={shape}"
                )
