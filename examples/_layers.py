"""A layer that the transformers share."""

from __future__ import annotations

from typing import Any

from keras import layers


class Positions(layers.Layer):
    """Adds a vector for its position to each part of a sequence."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Creates the vectors for sequences of shape `(batch, length, width)`."""
        self.vectors = self.add_weight(shape[1:])

    def call(self, x: Any) -> Any:
        """Returns the sequences with the positions added."""
        return x + self.vectors
