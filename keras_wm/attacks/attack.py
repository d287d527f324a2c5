"""What all attacks have in common."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_wm.datasets import Pictures
from keras_wm.publishing import publish

Change = Callable[[Any, Pictures | None, float, int], Any]


@dataclass(frozen=True)
class Attack:
    """Something that is done to a published network so that its mark is not found.

    An attack knows the network and the method, but no key. Call it like a function.

    Attributes:
        name: What to call it.
        title: What it does.
        unit: What its strength counts.
        strengths: The range of strengths that says something, weakest first.
        change: Does it to a network of its own.
        needs_data: Whether it trains, or looks at data.
    """

    name: str
    title: str
    unit: str
    strengths: tuple[float, ...]
    change: Change
    needs_data: bool = False

    def __call__(
        self,
        model: Any,
        data: Pictures | None = None,
        strength: float | None = None,
        seed: int = 0,
    ) -> Any:
        """Attacks a copy of a network.

        Args:
            model: A built `keras.Model`; it is left as it is. The attack gets what
                `keras_wm.publish` writes of it.
            data: What the attack may train on, where it trains.
            strength: From the weakest to the strongest of `strengths`; the latter by
                default.
            seed: Of all that is random.

        Returns:
            A `keras.Model`, not compiled.

        Raises:
            ValueError: If data is needed and missing, or the strength is out of range.
        """
        weakest, strongest = self.strengths[0], self.strengths[-1]
        if strength is None:
            strength = strongest
        if not min(weakest, strongest) <= strength <= max(weakest, strongest):
            raise ValueError(
                f"Expected a strength from {weakest:g} to {strongest:g} ({self.unit}) "
                f"of the attack {self.name!r}. Received: strength={strength!r}"
            )
        if self.needs_data and data is None:
            raise ValueError(
                f"The attack {self.name!r} trains. Expected data to train on. "
                "Received: data=None"
            )
        return self.change(published_copy(model), data, strength, seed)


def published_copy(model: Any) -> Any:
    """What somebody has who downloads a network: weights and layers, and no mark."""
    with tempfile.TemporaryDirectory() as folder:
        file = publish(model, Path(folder, "published.keras"))
        return keras.saving.load_model(file, compile=False)
