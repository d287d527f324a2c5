"""Measures the relatedness of networks that were made from each other or were not.

    python benchmarks/relatedness.py [--networks 9] [--variants 3] [--epochs 8]
        [--width 2]

Trains networks of three architectures on scikit-learn's digits, and makes other
networks from them by training, compression, averaging and every change of channels. A
table shows for each kind of pair the number of pairs, the smallest, median and largest
relatedness, and the share that counts as related.

Related are networks with a common start, too: two fine-tuned copies of one network are
as alike as a copy and the original. Relatedness does not show which of them was first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from keras_wm.alignment.reference import read_reference
from keras_wm.alignment.relatedness import RELATED, relatedness
from keras_wm.files import open_model
from keras_wm.research.alignment_trials.networks import ArrayModel
from keras_wm.research.attacks.architecture import (
    arrays_of,
    fresh_network,
    head_of,
    reinitialize,
)
from keras_wm.research.attacks.attack import Attack, kernels_by_layer
from keras_wm.research.attacks.equivalence import CHAINED
from keras_wm.research.attacks.overwriting import overwriting
from keras_wm.research.attacks.perturbation import NOISE, QUANTIZATION
from keras_wm.research.attacks.pruning import PRUNING
from keras_wm.research.datasets import Pictures, load_pictures
from keras_wm.research.hosts.wide_resnet import wide_resnet

HOSTS = ("dense", "convolutions", "wide residual")
RATE = 1e-3
# Attacks without training, by the name of the kind.
CHANGES: dict[str, tuple[Attack, float]] = {
    "permuted, scaled and flipped": (CHAINED, 1.0),
    "noise of 50 %": (NOISE, 0.5),
    "noise of 100 %": (NOISE, 1.0),
    "8 bits": (QUANTIZATION, 8),
    "4 bits": (QUANTIZATION, 4),
    "2 bits": (QUANTIZATION, 2),
    "90 % pruned": (PRUNING, 0.9),
    "99 % pruned": (PRUNING, 0.99),
}

# The weights of a network, as Keras lists them.
Weights = list[Any]


def main() -> None:
    """Trains the networks, compares them, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, default=9)
    parser.add_argument("--variants", type=int, default=3, help="of each kind")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=2, help="of the residual network")
    parser.add_argument("--hosts", nargs="*", choices=HOSTS, default=HOSTS)
    options = parser.parse_args()
    console = Console(width=110)
    columns = ("pairs", "smallest", "median", "largest", f"above {RELATED:g}")
    table = Table("architecture", "made from it by", *columns)
    digits = load_pictures("digits")
    for host in options.hosts:
        trainer = Trainer(_network(host, digits, options.width), options.epochs)
        kinds = compare_all(trainer, digits, options.networks, options.variants)
        for kind, figures in kinds.items():
            numbers = (np.min(figures), np.median(figures), np.max(figures))
            share = np.mean(np.array(figures) > RELATED)
            cells = (*(f"{number:.2f}" for number in numbers), f"{100 * share:.0f} %")
            table.add_row(host, kind, str(len(figures)), *cells)
        table.add_section()
    console.print(table)


class Trainer:
    """Trains networks of one architecture in one model, which is compiled once.

    Args:
        model: A built model.
        epochs: Number of epochs of a training.
    """

    def __init__(self, model: Any, epochs: int) -> None:
        self.model, self.epochs = model, epochs
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(RATE), loss)
        model.optimizer.build(model.trainable_variables)
        self._start = [np.asarray(value).copy() for value in model.optimizer.variables]

    def initial(self, seed: int) -> Weights:
        """Returns new weights."""
        keras.utils.set_random_seed(seed)
        return list(fresh_network(self.model).get_weights())

    def train(
        self, start: Weights, pictures: Pictures, seed: int, epochs: float = 1
    ) -> Weights:
        """Trains weights.

        Args:
            start: Weights to begin with.
            pictures: The training set.
            seed: Random seed of the order of the pictures.
            epochs: Number of epochs, in those of a training.
        """
        keras.utils.set_random_seed(seed)
        self.model.set_weights(start)
        for variable, value in zip(
            self.model.optimizer.variables, self._start, strict=True
        ):
            variable.assign(value)
        self.model.fit(
            *(pictures.x_train, pictures.y_train),
            batch_size=64,
            epochs=round(epochs * self.epochs),
            verbose=0,
        )
        return list(self.model.get_weights())

    def changed(self, weights: Weights, change: Callable[[Any], Any]) -> ArrayModel:
        """Returns the network that an attack makes of one with these weights."""
        self.model.set_weights(weights)
        return _as_arrays(change(self.model))

    def network(self, weights: Weights) -> ArrayModel:
        """Returns the network with these weights."""
        return self.changed(weights, lambda model: model)

    def reinitialized(self, weights: Weights, layers: Sequence[Any]) -> Weights:
        """Returns weights with new ones in some layers."""
        self.model.set_weights(weights)
        reinitialize(self.model, layers)
        return list(self.model.get_weights())


def compare_all(
    trainer: Trainer, digits: Pictures, count: int, variants: int
) -> dict[str, list[float]]:
    """Returns the relatedness of the pairs of each kind."""
    starts = [trainer.initial(seed) for seed in range(count)]
    trained = [
        trainer.train(start, digits, seed)
        for seed, start in enumerate(_shown(starts, "networks"))
    ]
    networks = [trainer.network(weights) for weights in trained]
    kinds = {"training apart": [_figure(*pair) for pair in combinations(networks, 2)]}
    for seed in _shown(range(variants), "variants"):
        made = dict(_trained_variants(trainer, digits, starts[seed], trained, seed))
        for kind, (attack, strength) in CHANGES.items():
            change = partial(attack, strength=strength, seed=seed)
            made[kind] = trainer.changed(trained[seed], change)
        for kind, network in made.items():
            kinds.setdefault(kind, []).append(_figure(networks[seed], network))
    return kinds


def _trained_variants(
    trainer: Trainer,
    digits: Pictures,
    start: Weights,
    trained: Sequence[Weights],
    seed: int,
) -> Iterator[tuple[str, ArrayModel]]:
    """Yields networks that were trained in a certain relation to the one of a seed."""
    own, other = trained[seed], trained[seed - 1]
    rotated, order = digits.rotated(), 1000 + seed

    def fine_tuned(
        begin: Weights, pictures: Pictures = digits, epochs: float = 1
    ) -> ArrayModel:
        return trainer.network(trainer.train(begin, pictures, order, epochs))

    new_start = trainer.initial(order)
    yield "training apart, another task", fine_tuned(new_start, rotated)
    yield "training apart from equal initial weights", fine_tuned(start)
    # The network that both were branched from had a quarter of the training.
    branch = trainer.train(start, digits, seed, 0.25)
    yield "training apart after a common quarter", fine_tuned(branch)
    yield "fine-tuning", fine_tuned(own)
    yield "fine-tuning for long", fine_tuned(own, epochs=4)
    head, half = head_of(trainer.model), kernels_by_layer(trainer.model)[1::2]
    new_head = trainer.reinitialized(own, [head])
    yield "fine-tuning to another task, with a new head", fine_tuned(new_head, rotated)
    new_layer = trainer.reinitialized(own, [kernels_by_layer(trainer.model)[1][0]])
    yield "a new second layer, and fine-tuning", fine_tuned(new_layer)
    new_half = trainer.reinitialized(own, [layer for layer, _ in half])
    yield "every other layer new, and fine-tuning", fine_tuned(new_half)
    tuned = trainer.train(own, digits, order)
    yield "the mean with a fine-tuned one", trainer.network(_mean(own, tuned))
    yield "the mean with an unrelated one", trainer.network(_mean(own, other))
    mark = overwriting("keyed")
    yield (
        "overwriting with another mark",
        trainer.changed(own, lambda model: mark(model, digits, mark.strengths[-1])),
    )
    chained = trainer.changed(own, lambda model: PRUNING(CHAINED(model), strength=0.9))
    yield "channel changes, and 90 % pruned", chained


def _mean(first: Weights, second: Weights) -> Weights:
    return [(a + b) / 2 for a, b in zip(first, second, strict=True)]


def _shown(items: Sequence[Any], text: str) -> Iterator[Any]:
    yield from track(items, text, console=Console(stderr=True))


def _as_arrays(model: Any) -> ArrayModel:
    arrays = {
        name: array.astype(np.float64) for name, array in arrays_of(model).items()
    }
    return ArrayModel(model.get_config(), arrays)


def _figure(original: ArrayModel, disputed: ArrayModel) -> float:
    with open_model(original) as own, open_model(disputed) as suspect:
        return relatedness(read_reference(own), suspect).figure


def _network(host: str, pictures: Pictures, width: int) -> Any:
    shape, layers = pictures.x_train.shape[1:], keras.layers
    if host == "wide residual":
        return wide_resnet(shape, pictures.classes, k=width)
    hidden: list[Any] = []
    if host == "dense":
        hidden += [layers.Flatten()]
        hidden += [layers.Dense(64, "relu") for _ in range(3)]
    else:
        for filters in (32, 64):
            hidden += [layers.Conv2D(filters, 3, padding="same", activation="relu")]
            hidden += [layers.BatchNormalization()]
        hidden += [layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu")]
        hidden += [layers.GlobalAveragePooling2D(), layers.Dense(64, "relu")]
    head = layers.Dense(pictures.classes)
    return keras.Sequential([keras.Input(shape), *hidden, head])


if __name__ == "__main__":
    main()
