"""What all attacks have in common."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_wm.embedding.marked_layers import is_built, sublayers
from keras_wm.embedding.publishing import publish
from keras_wm.research.datasets import Examples

# Model, data (`None` where an attack needs none), strength and seed; another model.
Change = Callable[[Any, Any, float, int], Any]


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

    def thinned(self, count: int) -> Attack:
        """The same attack with so many of its strengths, evenly, the strongest too."""
        if count >= len(self.strengths):
            return self
        places = np.linspace(len(self.strengths) - 1, 0, count).round().astype(int)
        chosen = tuple(self.strengths[place] for place in sorted(places))
        return replace(self, strengths=chosen)

    def __call__(
        self,
        model: Any,
        data: Examples | None = None,
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
            seed: Of all that is random. Attacks that train set Keras's own seed.

        Returns:
            A `keras.Model`, not compiled.

        Raises:
            ValueError: If data is needed and missing, the strength is out of range,
                or the model is not built or not of a kind that can be so attacked.
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
        if not self.needs_data:
            return self.change(published_copy(model), data, strength, seed)
        keras.utils.set_random_seed(_attackers_seed(self.name, seed))
        attacked = self.change(published_copy(model), data, strength, seed)
        # Nothing of the training is left: no optimizer, penalty or constraint.
        return published_copy(attacked)


def published_copy(model: Any) -> Any:
    """What somebody has who downloads a network: weights and layers, and no mark.

    Which layers the owner froze binds nobody else: all can be trained.
    """
    if not is_built(model):
        raise ValueError(
            "Expected a model that is built: call it once, or model.build. Received: "
            f"{model.name!r}, which has no weights yet"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = publish(model, Path(folder, "published.keras"))
        copy = keras.saving.load_model(file, compile=False)
    unfreeze(copy)
    return copy


def unfreeze(model: Any) -> None:
    """Makes every layer of a model one that is trained."""
    for layer in sublayers(model):
        layer.trainable = True


def _attackers_seed(name: str, seed: int) -> int:
    """A seed that no owner had who counts from 0 too.

    With the owner's own, weights that are drawn anew could be those that the network
    began with.
    """
    digest = hashlib.sha256(f"keras_wm attack {name} {seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
