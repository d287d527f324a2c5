"""The class `Attack`, and helpers for attacks on kernels."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_wm.embedding.layer_kernels import find_kernel
from keras_wm.embedding.marked_layers import is_built, own_variables, sublayers
from keras_wm.embedding.publishing import publish
from keras_wm.research.datasets import Examples

# Called with the model, data (`None` where an attack needs none), strength and random
# seed; returns the attacked model.
Change = Callable[[Any, Any, float, int], Any]
Kernel = NDArray[np.float32]


@dataclass(frozen=True)
class Attack:
    """A change to a published network that is meant to hide or remove its mark.

    The attacker knows the network and the method, but no key. An attack is called like
    a function.

    Attributes:
        name: The attack's name.
        title: A sentence that describes the attack.
        unit: The quantity that the strength measures.
        strengths: Useful strengths, from the weakest to the strongest.
        change: The function that performs the attack on a copy of the network.
        needs_data: Whether the attack trains or evaluates the network on data.
    """

    name: str
    title: str
    unit: str
    strengths: tuple[float, ...]
    change: Change
    needs_data: bool = False

    def thinned(self, count: int) -> Attack:
        """Returns the attack with fewer strengths, evenly spaced, up to the strongest.

        Args:
            count: Number of strengths to keep.
        """
        if count >= len(self.strengths):
            return self
        indices = np.linspace(len(self.strengths) - 1, 0, count).round().astype(int)
        chosen = tuple(self.strengths[index] for index in sorted(indices))
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
            model: A built `keras.Model`, which is not changed. The attack works on
                the file that `keras_wm.publish` writes.
            data: Data to train on. Required if `needs_data` is true.
            strength: A value between the weakest and the strongest of `strengths`.
                Defaults to the strongest.
            seed: Random seed. Attacks that train derive Keras's global seed from it.

        Returns:
            A `keras.Model`, not compiled.

        Raises:
            ValueError: If data is needed and missing, the strength is out of range,
                the model is not built, or the attack does not apply to such a model.
        """
        weakest, strongest = self.strengths[0], self.strengths[-1]
        if strength is None:
            strength = strongest
        if not min(weakest, strongest) <= strength <= max(weakest, strongest):
            raise ValueError(
                f"Expected a strength from {weakest:g} to {strongest:g} ({self.unit}) "
                f"for the attack {self.name!r}. Received: strength={strength!r}"
            )
        if self.needs_data and data is None:
            raise ValueError(
                f"The attack {self.name!r} trains. Expected data to train on. "
                "Received: data=None"
            )
        if self.needs_data:
            keras.utils.set_random_seed(_attackers_seed(self.name, seed))
        attacked = self.change(published_copy(model), data, strength, seed)
        # The copy drops the optimizer and all penalties and constraints.
        return published_copy(attacked) if self.needs_data else attacked


def published_copy(model: Any) -> Any:
    """Returns the network as someone who downloads it would have it, without the mark.

    All layers are trainable: an attacker need not keep the owner's layers frozen.

    Raises:
        ValueError: If the model is not built.
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
    """Makes every layer of a model trainable."""
    # Keras does not do so if the model itself is trainable already.
    for layer in sublayers(model):
        layer.trainable = True


def _attackers_seed(name: str, seed: int) -> int:
    """Returns a random seed for weights that differ from the owner's initial weights.

    The owner and the attacker can both count their seeds from 0.
    """
    digest = hashlib.sha256(f"keras_wm attack {name} {seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def kernels_by_layer(
    model: Any, layer: str | Sequence[str] | None = None
) -> list[tuple[Any, Any]]:
    """Returns the kernels to attack, each with its layer.

    Args:
        model: The network.
        layer: Name of the marked layer, or of several. `None` is every weight that can
            carry a mark: those of rank 2 or more, also in nested models.

    Raises:
        ValueError: If the model has no layer of such a name.
    """
    if layer is not None:
        names = [layer] if isinstance(layer, str) else layer
        return [find_kernel(model, name) for name in names]
    return [
        (sublayer, variable)
        for sublayer in sublayers(model)
        for variable in own_variables(sublayer)
        if variable.trainable
        and len(variable.shape) > 1
        and keras.backend.is_float_dtype(variable.dtype)
    ]


def layer_phrase(layer: str | Sequence[str] | None) -> str:
    """Returns the phrase for these layers in the title of an attack."""
    if layer is None:
        return "every layer"
    if isinstance(layer, str):
        return f"the layer {layer!r}"
    return f"the layers {', '.join(map(repr, layer))}"


def kernel_variables(model: Any) -> list[Any]:
    """Returns the weights of `kernels_by_layer`."""
    return [variable for _, variable in kernels_by_layer(model)]


def each_kernel(
    change: Callable[[Kernel, float, np.random.Generator], Kernel],
) -> Change:
    """Returns a change of every kernel of a network, given the change of one kernel."""

    def attack(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        for variable in kernel_variables(model):
            kernel = np.asarray(variable, np.float32)
            variable.assign(change(kernel, strength, rng))
        return model

    return attack
