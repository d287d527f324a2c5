"""The marks that the experiments compare: the papers' three, and the default."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from keras_wm.embedding.attachment import attach
from keras_wm.embedding.kernel_projection import (
    KernelProjection,
    Loss,
    without_capacity_warnings,
)
from keras_wm.scheme.capacity import USUAL_BITS
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.key_source import SecretSource
from keras_wm.scheme.projection import Filters, Projection, usual_groups
from keras_wm.scheme.secret import Secret

PAPER_BITS = 256
GROUPS = (2, 3, 4)
HEAD = "classifier"


@dataclass(frozen=True)
class Scheme:
    """How a message is put into a kernel.

    Attributes:
        projection: What X is.
        filters: How the filters are weighed.
        loss: The penalty.
        bits: T, the length of the message.
    """

    projection: Projection
    filters: Filters
    loss: Loss
    bits: int


UNMARKED = "unmarked"
# The papers call the first three so; the last is what WatermarkRegularizer does. The
# regularizer's strength is the papers' 0.01 for the cross-entropy.
SCHEMES = {
    "direct": Scheme("direct", "mean", "crossentropy", PAPER_BITS),
    "diff": Scheme("diff", "mean", "crossentropy", PAPER_BITS),
    "random": Scheme("random", "mean", "crossentropy", PAPER_BITS),
    "default": Scheme("random", "keyed", "margin", USUAL_BITS),
}


def group_layer(group: int) -> str:
    """The convolution that the papers mark in a group: `"conv2_block1_conv2"`."""
    return f"conv{group}_block1_conv2"


@dataclass(frozen=True)
class Mark:
    """One mark: what is embedded where.

    Attributes:
        scheme: A name in `SCHEMES`.
        layers: The names of the layers that carry it, each the whole message.
        bits: T, the length of the message.
        strength: The factor lambda; `None` is the regularizer's default.
        owner: Whose key; every owner has another one.
        recipient: Whose copy is marked; an empty string marks the owner's own.
    """

    scheme: str
    layers: tuple[str, ...]
    bits: int
    strength: float | None = None
    owner: int = 0
    recipient: str = ""

    def key(self) -> WatermarkKey:
        """The owner's key, which everybody can make: the experiments keep no secret."""
        scheme = SCHEMES[self.scheme]
        secret = hashlib.sha256(f"keras_wm experiments {self.owner}".encode()).digest()
        source = SecretSource(
            Secret(secret),
            f"owner {self.owner}",
            self.bits,
            scheme.projection,
            scheme.filters,
            usual_groups(scheme.filters, self.bits),
        )
        # The experiment on capacity shows what is lost beyond a kernel's limit.
        key = WatermarkKey(source, limited=False)
        return key.for_recipient(self.recipient) if self.recipient else key

    def margin(self, shape: tuple[int, ...]) -> float | None:
        """How far clear each bit of a kernel is pushed; `None` without a margin."""
        if SCHEMES[self.scheme].loss != "margin":
            return None
        with without_capacity_warnings():
            return KernelProjection.for_shape(self.key(), shape, "margin", None).margin

    def attach(self, model: Any) -> None:
        """Puts the penalty on the layers of a model."""
        key, loss = self.key(), SCHEMES[self.scheme].loss
        for layer in self.layers:
            attach(model, layer, key, loss, self.strength, variable="kernel")
