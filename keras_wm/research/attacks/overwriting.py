"""Overwriting: training another mark over the first one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from keras_wm.embedding.attachment import attach, detach
from keras_wm.embedding.loss.kernel_projection import Loss, without_capacity_warnings
from keras_wm.research.attacks.attack import Attack, kernels_by_layer, layer_phrase
from keras_wm.research.attacks.training import RATE, train
from keras_wm.research.datasets import Examples
from keras_wm.scheme.capacity import unseen_margin
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import Filters, SecretSource, usual_groups
from keras_wm.utils.arguments import check_choice

Varied = Literal["strength", "rate", "bits", "keys", "rounds"]

BITS = 256
_FEWEST_BITS = 8
_LOSSES: dict[Filters, Loss] = {"mean": "crossentropy", "keyed": "margin"}
_MARKS: dict[Filters, str] = {"mean": "the papers' mark", "keyed": "a keyed mark"}
_STRENGTHS: dict[Filters, tuple[float, ...]] = {
    "mean": (0.001, 0.01, 0.1, 1.0),
    "keyed": (1e-5, 1e-4, 1e-3, 1e-2),
}
# A phrase for the attack's title and the unit, by the setting that is varied.
_PHRASES = {
    "strength": ("of varying strength", "factor of the penalty, lambda"),
    "rate": ("at a varying learning rate", "learning rate"),
    "bits": ("of a guessed length", "bits of the mark"),
    "keys": ("of many keys at once", "keys of 256 bits at most"),
    "rounds": (
        "with one key after another",
        "keys of 256 bits at most, each for one epoch",
    ),
}
_VALUES: dict[str, tuple[float, ...]] = {
    "rate": (0.001, 0.01, 0.05, 0.1),
    "bits": (64, 256, 512, 1024),
    "keys": (1, 4, 16),
    "rounds": (1, 4, 8, 16),
}


@dataclass(frozen=True)
class Overwriting:
    """Settings for training another mark over an existing one.

    Attributes:
        filters: `"mean"` for the papers' mark, with the cross-entropy; `"keyed"` for
            the default mark, with the margin loss.
        layer: Name of the layer to mark. `None` marks every layer that can hold the
            message.
        bits: Length T of a message.
        strength: Factor lambda of the penalty. `None` is the regularizer's default.
        rate: Initial learning rate.
        keys: Number of keys to embed at once. They are combined into one key with
            `keys` times the bits and filter weights, and the margin of a single key.
        rounds: Number of repetitions with different keys, one epoch each. 0 embeds
            once, for as long as fine-tuning takes.
    """

    filters: Filters
    layer: str | None = None
    bits: int = BITS
    strength: float | None = None
    rate: float = RATE
    keys: int = 1
    rounds: int = 0

    def key(self, seed: int, number: int = 0) -> WatermarkKey:
        """Returns the attacker's key of a round, derived from the random seed."""
        text = f"keras_wm attacker {seed} {number}"
        groups = usual_groups(self.filters, self.bits)
        source = SecretSource(
            Secret(hashlib.sha256(text.encode()).digest()),
            "attacker",
            self.keys * self.bits,
            "random",
            self.filters,
            groups=self.keys * groups,
        )
        return WatermarkKey(source)

    def shortened(self, model: Any) -> Overwriting:
        """Returns settings whose bits are halved until a layer can hold them.

        If no layer can hold even 8 bits, the settings are returned unchanged.

        Raises:
            ValueError: If the model has no layer of this name.
        """
        kernels = kernels_by_layer(model, self.layer)
        bits = self.bits
        while bits >= _FEWEST_BITS:
            shorter = replace(self, bits=bits)
            if any(shorter.key(0).fits(kernel.shape) for _, kernel in kernels):
                return shorter
            bits //= 2
        return self

    def __call__(self, model: Any, data: Examples, seed: int) -> Any:
        """Trains the marks into a network, and returns the network.

        Raises:
            ValueError: If the model has no layer of this name, or no layer can hold
                the message.
        """
        epochs = 1 if self.rounds else None
        with without_capacity_warnings():
            for number in range(max(1, self.rounds)):
                self._attach(model, self.key(seed, number))
                train(model, data, self.rate, epochs)
                detach(model)
        return model

    def _attach(self, model: Any, key: WatermarkKey) -> None:
        kernels = kernels_by_layer(model, self.layer)
        if self.layer is None:
            kernels = [pair for pair in kernels if key.fits(pair[1].shape)]
        if not kernels:
            raise ValueError(
                f"No layer of {model.name!r} can hold the attacker's {key.bits} bits."
            )
        for layer, kernel in kernels:
            mark = key.for_shape(kernel.shape)
            loss, margin = _LOSSES[self.filters], None
            if loss == "margin":
                margin = unseen_margin(self.bits, self.filters, mark.size, mark.count)
            attach(model, layer, key, loss, self.strength, margin, kernel.name)


def overwriting(
    filters: Filters, layer: str | None = None, varied: Varied = "strength"
) -> Attack:
    """Returns an attack that trains another mark over the first one.

    Args:
        filters: See `Overwriting`.
        layer: See `Overwriting`.
        varied: The attribute of `Overwriting` that is the attack's strength. The
            others have their defaults, but with fewer bits where a kernel is small.

    Returns:
        An `Attack`.

    Raises:
        ValueError: If `filters` or `varied` is not one of the possible values.
    """
    check_choice("filters", filters, get_args(Filters))
    check_choice("varied", varied, get_args(Varied))
    phrase, unit = _PHRASES[varied]
    is_count = varied in ("bits", "keys", "rounds")

    def change(model: Any, data: Examples, strength: float, seed: int) -> Any:
        value: Any = round(strength) if is_count else strength
        settings = replace(Overwriting(filters, layer), **{varied: value})
        if varied != "bits":
            settings = settings.shortened(model)
        return settings(model, data, seed)

    return Attack(
        f"overwriting-{filters}-{varied}",
        f"Trains {_MARKS[filters]} {phrase} into {layer_phrase(layer)}.",
        unit,
        _VALUES.get(varied, _STRENGTHS[filters]),
        change,
        needs_data=True,
    )
