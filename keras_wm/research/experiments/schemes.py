"""The marks that the experiments compare: three of the papers, and two of our own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from keras_wm.embedding.attach_after import AttachAfter
from keras_wm.embedding.attachment import attach
from keras_wm.embedding.loss.kernel_projection import (
    KernelProjection,
    Loss,
    without_capacity_warnings,
)
from keras_wm.scheme.anchor import Anchor
from keras_wm.scheme.capacity import USUAL_BITS
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import (
    Filters,
    Projection,
    SecretSource,
)

PAPER_BITS = 256
GROUPS = (2, 3, 4)
HEAD = "classifier"


@dataclass(frozen=True)
class Scheme:
    """A way to embed a message into a kernel.

    Attributes:
        projection: Kind of the projection X.
        filters: Kind of the filter weights.
        loss: Embedding loss.
        bits: T, length of the message.
        anchored: Whether the mark is embedded where the layer's inputs are.
    """

    projection: Projection
    filters: Filters
    loss: Loss
    bits: int
    anchored: bool = False


UNMARKED = "unmarked"
# The first three have their names from the papers; "default" is the default of
# WatermarkRegularizer, and "anchored" that of `attach` with inputs. The regularizer's
# default strength for the cross-entropy is the papers' 0.01.
SCHEMES = {
    "direct": Scheme("direct", "mean", "crossentropy", PAPER_BITS),
    "diff": Scheme("diff", "mean", "crossentropy", PAPER_BITS),
    "random": Scheme("random", "mean", "crossentropy", PAPER_BITS),
    "default": Scheme("random", "keyed", "margin", USUAL_BITS),
    "anchored": Scheme("random", "keyed", "margin", USUAL_BITS, anchored=True),
}
# The marks of the recorded studies.
RECORDED = ("direct", "diff", "random", "default")


def group_layer(group: int) -> str:
    """Returns the convolution of a group that the papers mark."""
    return f"conv{group}_block1_conv2"


@cache
def owners_key(scheme: str, bits: int, owner: int) -> WatermarkKey:
    """Returns an owner's key.

    The secret is a hash of the owner's number, so anybody can repeat a run.
    """
    secret = hashlib.sha256(f"keras_wm experiments {owner}".encode()).digest()
    source = SecretSource(
        Secret(secret),
        f"owner {owner}",
        bits,
        SCHEMES[scheme].projection,
        SCHEMES[scheme].filters,
    )
    # Not limited, because the capacity experiment exceeds what a kernel can hold.
    return WatermarkKey(source, limited=False)


@dataclass(frozen=True)
class Mark:
    """One mark: its scheme, its key and the layers that carry it.

    Attributes:
        scheme: Name in `SCHEMES`.
        layers: Names of the marked layers. Each carries a whole message, in a slot of
            its own.
        bits: T, length of the message.
        strength: Strength lambda; `None` is the regularizer's default.
        owner: Number of the owner. Every owner has a different key.
        recipient: Recipient of the marked copy; empty for the owner's own model.
        slot: Slot of the key in the first layer; the others have the slots after it.
    """

    scheme: str
    layers: tuple[str, ...]
    bits: int
    strength: float | None = None
    owner: int = 0
    recipient: str = ""
    slot: int = 0

    def key(self) -> WatermarkKey:
        """Returns the key of the owner or recipient, in the first layer's slot."""
        return self.keys()[0]

    def keys(self) -> list[WatermarkKey]:
        """Returns the key in the slot of each layer."""
        key = owners_key(self.scheme, self.bits, self.owner)
        if self.recipient:
            key = key.for_recipient(self.recipient)
        slots = range(self.slot, self.slot + len(self.layers))
        return [key.in_slot(slot) for slot in slots]

    def margin(self, shape: tuple[int, ...]) -> float | None:
        """Returns the margin m in a kernel of this shape; `None` for other losses."""
        if SCHEMES[self.scheme].loss != "margin":
            return None
        with without_capacity_warnings():
            return KernelProjection.for_shape(self.key(), shape, "margin", None).margin

    @property
    def is_anchored(self) -> bool:
        """True if the mark is embedded where its layers have inputs."""
        return SCHEMES[self.scheme].anchored

    def attach(self, model: Any, inputs: Any = None) -> None:
        """Attaches the mark's regularizer to its layers in a model.

        Args:
            model: A built `keras.Model`.
            inputs: Examples of its inputs, for an anchored mark. Defaults to `None`.
        """
        shown = inputs if self.is_anchored else None
        for layer, key in zip(self.layers, self.keys(), strict=True):
            attach(
                model,
                layer,
                key,
                self._loss,
                self.strength,
                None,
                "kernel",
                inputs=shown,
            )

    def attaching(self, epochs: int, inputs: Any) -> list[AttachAfter]:
        """Returns the callbacks that attach an anchored mark after some epochs."""
        options = {"loss": self._loss, "strength": self.strength, "variable": "kernel"}
        return [
            AttachAfter(epochs, layer, key, inputs, **options)
            for layer, key in zip(self.layers, self.keys(), strict=True)
        ]

    def anchors(self) -> list[dict[str, Any]]:
        """Returns the anchors that the mark was embedded through, as plain values."""
        return [key.anchor.payload() for key in self.keys() if key.anchor]

    def keep_anchors(self, anchors: Sequence[dict[str, Any]]) -> None:
        """Gives the mark's keys the anchors of a stored network."""
        for key, anchor in zip(self.keys(), anchors, strict=False):
            key.add_anchor(Anchor.from_payload(anchor))

    @property
    def _loss(self) -> Loss:
        return SCHEMES[self.scheme].loss
