"""Merging: the weights are combined with those of networks fine-tuned from them.

Averages of fine-tuned networks are called model soups
([Wortsman et al. 2022](https://arxiv.org/abs/2203.05482)), and moving along the change
of a fine-tuning task arithmetic
([Ilharco et al. 2023](https://arxiv.org/abs/2212.04089)).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_wm.embedding.lora import merged_kernel
from keras_wm.embedding.marked_layers import own_variables, sublayers
from keras_wm.research.attacks.architecture import assign, layers_by_path, weights_of
from keras_wm.research.attacks.attack import Attack, published_copy
from keras_wm.research.attacks.collusion import average
from keras_wm.research.attacks.training import RATE, train
from keras_wm.research.datasets import Examples

# The ingredients of a soup are trained at different rates.
_RATES = (RATE, 5 * RATE, RATE / 2, 2 * RATE)


def _along_task(model: Any, data: Examples, factor: float, seed: int) -> Any:
    tuned = published_copy(model)
    train(tuned, data, RATE)
    return average([model, tuned], [1 - factor, factor])


def _soup(model: Any, data: Examples, count: float, seed: int) -> Any:
    networks = []
    for rate in _RATES[: round(count)]:
        tuned = published_copy(model)
        train(tuned, data, rate)
        networks.append(tuned)
    return average(networks)


def _lora_merged(model: Any, data: Examples, rank: float, seed: int) -> Any:
    """Trains the factors and biases of all layers that can have factors."""
    result = published_copy(model)
    for layer in sublayers(model):
        if hasattr(layer, "enable_lora"):
            layer.enable_lora(round(rank))
        elif own_variables(layer):
            layer.trainable = False
    if not model.trainable_weights:
        raise ValueError(
            "Expected a model with layers that can have LoRA factors: dense, "
            f"convolutional or embedding layers. Received: {model.name!r}, which has "
            "none"
        )
    train(model, data, RATE)
    layers = dict(layers_by_path(model))
    weights = weights_of(model)
    assign(
        result,
        {
            (path, name): np.asarray(merged_kernel(layers[path], weights[path, name]))
            for path, name in weights_of(result)
        },
    )
    return result


TASK_ARITHMETIC = Attack(
    "task-arithmetic",
    "Fine-tunes a copy, and moves the weights along its change.",
    "times the change",
    (0.5, 1.0, 1.5, 2.0, 3.0),
    _along_task,
    needs_data=True,
)
SOUP = Attack(
    "soup",
    "Averages copies that are fine-tuned at different learning rates.",
    "copies",
    (2, 4),
    _soup,
    needs_data=True,
)
LORA = Attack(
    "lora",
    "Fine-tunes by LoRA, and merges the factors into the kernels.",
    "rank of the factors",
    (1, 4, 16),
    _lora_merged,
    needs_data=True,
)
ATTACKS = (TASK_ARITHMETIC, SOUP, LORA)
