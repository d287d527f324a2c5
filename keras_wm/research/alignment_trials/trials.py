r"""The networks of a trial, which are marked without training.

A trial has a base network. The marked network and its siblings are branched from it:
each is the base network plus independent noise, as after different trainings. The
suspects, which must not be found, are

- unrelated networks,
- siblings: they were branched from the same base and carry no mark,
- siblings beside a mark: all their weights but the tested kernel are those of the
  marked network, whose next layer has learned to compensate for the mark.

The mark is written by the smallest change that raises every score to the margin, so
thousands of trials are cheap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from keras_wm.research.alignment_trials.networks import (
    TESTED,
    TESTED_KERNEL,
    Architecture,
    ArrayModel,
    Weights,
)
from keras_wm.scheme.capacity import flat_shape, unseen_margin
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arrays import Floats

UNRELATED = "unrelated"
SIBLING = "sibling"
BESIDE = "sibling beside a mark"
REARRANGED = "rearranged"
# Number of random inputs for teaching the next layer to compensate for a mark.
_INPUTS = 256
# Each step of marking is exact to first order in the norm that it adds.
_STEPS = 12


@dataclass(frozen=True)
class Trial:
    """The networks of one key.

    Attributes:
        key: The key, in slot 0.
        checkpoint: The network before it was marked.
        reference: The marked network.
        suspects: Networks without the mark, by their relation to the marked network.
        copies: Networks with the mark, by what was done to them.
    """

    key: WatermarkKey
    checkpoint: ArrayModel
    reference: ArrayModel
    suspects: Mapping[str, ArrayModel]
    copies: Mapping[str, ArrayModel] = field(default_factory=dict)


def make_trial(
    architecture: Architecture, key: WatermarkKey, seed: int, strength: float = 1.0
) -> Trial:
    """Makes the networks of a trial.

    Args:
        architecture: Architecture of all networks.
        key: The key of the mark.
        seed: Random seed of all weights.
        strength: The margin of the mark, divided by the default margin.
    """
    rng = np.random.default_rng(seed)
    base = architecture.draw(rng)
    before = architecture.branch(base, rng)
    reference = _marked(architecture, before, key, strength)
    if not architecture.is_tied:
        reference = _compensated(before, reference, rng)
    sibling = architecture.branch(base, rng)
    beside = {**reference, TESTED_KERNEL: sibling[TESTED_KERNEL]}
    tuned = architecture.branch(reference, rng)

    def rearranged(weights: Weights) -> ArrayModel:
        return architecture.model(architecture.rearranged(weights, seed))

    return Trial(
        key,
        architecture.model(before),
        architecture.model(reference),
        {
            UNRELATED: rearranged(architecture.draw(rng)),
            # Half of them keep the order of their channels.
            SIBLING: rearranged(sibling) if seed % 2 else architecture.model(sibling),
            BESIDE: rearranged(beside),
        },
        {
            REARRANGED: rearranged(reference),
            "trained and rearranged": rearranged(tuned),
        },
    )


def _marked(
    architecture: Architecture, weights: Weights, key: WatermarkKey, strength: float
) -> Weights:
    """Returns weights with the mark in every layer that the architecture marks."""
    marked = dict(weights)
    for layer, slot in architecture.slots.items():
        kernel = marked[layer, "kernel"]
        margin = unseen_margin(key.bits, key.filters, *flat_shape(kernel.shape))
        kernel = with_margin(kernel, key.in_slot(slot), strength * margin)
        marked[layer, "kernel"] = kernel
    return marked


def _compensated(before: Weights, marked: Weights, rng: np.random.Generator) -> Weights:
    """Returns a marked chain whose next layer compensates for the mark.

    The layer behind the tested one gives, as nearly as possible, the outputs that it
    gave before (ridge regression). So it knows the mark, as after training beside it.
    """
    inputs = rng.normal(size=(_INPUTS, len(before["first", "kernel"])))
    was, now = (_hidden(weights, inputs) for weights in (before, marked))
    kernel = marked["third", "kernel"]
    ridge = 0.01 * np.trace(now.T @ now) / len(kernel) * np.eye(len(kernel))
    step = np.linalg.solve(now.T @ now + ridge, now.T @ ((was - now) @ kernel))
    return {**marked, ("third", "kernel"): kernel + step}


def _hidden(weights: Weights, values: Floats) -> Floats:
    """Returns the outputs of the tested layer of a chain."""
    for layer in ("first", TESTED):
        values = values @ weights[layer, "kernel"] + weights[layer, "bias"]
        values = np.maximum(values, 0)
    return values


def with_margin(kernel: Floats, key: WatermarkKey, margin: float) -> Floats:
    r"""Returns a kernel with a key's mark, written by the smallest change.

    The score of bit j is \(z_j = s_j x_j \cdot W a_j / \lVert W a_j \rVert\). For the
    bits below the margin, steps D of the least norm solve
    \(s_j x_j \cdot D a_j = (m - z_j) \lVert W a_j \rVert\).

    Args:
        kernel: The kernel, filters last.
        key: The key of the mark.
        margin: The margin m.
    """
    mark = key.for_shape(kernel.shape)
    rows = mark.signs[:, None] * mark.matrix / np.reshape(mark.spread, (-1, 1))
    filters = mark.filter_weights[np.arange(key.bits) % key.groups]
    flat = kernel.reshape(mark.size, mark.count)
    for _ in range(_STEPS):
        read = flat @ filters.T
        norms = np.linalg.norm(read, axis=0)
        missing = margin * norms - np.einsum("tm,mt->t", rows, read)
        short = missing > 0
        products = (rows[short] @ rows[short].T) * (filters[short] @ filters[short].T)
        factors = np.linalg.lstsq(products, missing[short], rcond=None)[0]
        flat = flat + rows[short].T @ (factors[:, None] * filters[short])
    result: Floats = flat.reshape(kernel.shape)
    return result
