"""Measures the p-values of random keys in trained networks that have no mark.

    python benchmarks/false_alarms.py [--keys 2000] [--networks 20] [--epochs 4]
        [--recipients 500]

Trains networks that differ in architecture, optimizer, initialization, regularization
and seed on scikit-learn's digits, without a mark. The largest kernel of each is then
tested for many random keys. The soft p-value must be uniform in [0, 1]. The script
prints a Kolmogorov-Smirnov test of that for each network, and compares the smallest of
all p-values with the smallest of as many uniform ones. The hard p-value takes few
values and is never smaller than uniform. The script prints how often it is below 1 %,
and the same for the upper bound that is the soft p-value of innocent recipients.
"""

from __future__ import annotations

import argparse
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import kstest

from keras_wm import WatermarkKey, detect
from keras_wm.research.datasets import load_pictures
from keras_wm.research.hosts.wide_resnet import wide_resnet
from keras_wm.verification.standing import MARKED

BITS = 64
KINDS = ("dense", "convolutions", "wide residual")
OPTIMIZERS = ("sgd", "adam", "rmsprop", "adamw")
INITIALIZERS = ("he_normal", "glorot_uniform", "orthogonal")
REGULARIZERS = ("none", "l2", "l1")


def main() -> None:
    """Trains the networks, tests the keys, and prints the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keys", type=int, default=2000)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--recipients", type=int, default=500, help="for each network")
    options = parser.parse_args()
    console = Console(width=110)
    keys = [WatermarkKey.generate(f"key {i}", BITS) for i in range(options.keys)]
    columns = ("KS test of soft p", "hard p < 1 %", "recipients' p < 1 %")
    table = Table("network", "accuracy", "kernel", *columns)
    tests, smallest, alarms = [], 1.0, 0
    innocent: list[float] = []
    for number in track(range(options.networks), console=Console(stderr=True)):
        name, accuracy, kernel = trained_kernel(number, options.epochs)
        detections = [detect(kernel, key) for key in keys]
        soft = [10 ** (detection.log10_p_soft or 0.0) for detection in detections]
        hard = np.mean([detection.log10_p_hard < -2 for detection in detections])
        tests.append(float(kstest(soft, "uniform").pvalue))
        smallest = min(smallest, *soft)
        alarms += sum(p < MARKED for p in soft)
        named = innocents(kernel, keys[0], number, options.recipients)
        innocent += named
        shares = (hard, np.mean(np.array(named) < -2))
        shape = "x".join(map(str, kernel.shape))
        row = (f"{accuracy:.3f}", shape, f"{tests[-1]:.3f}")
        table.add_row(name, *row, *(f"{100 * share:.2f} %" for share in shares))
    console.print(table)
    count = options.keys * options.networks
    console.print(
        f"Smallest p-value of the KS tests, corrected for {len(tests)} networks: "
        f"{min(1.0, min(tests) * len(tests)):.3f}\n"
        f"Smallest of {count:,} soft p-values: {smallest:.2g}. For uniform p-values it "
        f"is between {-np.log(0.975) / count:.2g} and {-np.log(0.025) / count:.2g} "
        "with 95 % probability.\n"
        f"False alarms (p < {MARKED:g}): {alarms}\n"
        f"Smallest p-value of {len(innocent):,} innocent recipients: "
        f"{10 ** min(innocent):.2g}; below {MARKED:g}: "
        f"{sum(p < np.log10(MARKED) for p in innocent)}"
    )


def innocents(
    kernel: NDArray[Any], key: WatermarkKey, number: int, count: int
) -> list[float]:
    """Returns log10 of the soft p-values of recipients who have no copy."""
    keys = (key.for_recipient(f"innocent {number} {i}") for i in range(count))
    return [detect(kernel, recipient).log10_p for recipient in keys]


def trained_kernel(number: int, epochs: int) -> tuple[str, float, NDArray[Any]]:
    """Trains the network of a number; returns its name, accuracy and largest kernel."""
    kind = KINDS[number % len(KINDS)]
    rng = np.random.default_rng(number)
    optimizer, initializer, regularizer = (
        str(rng.choice(names)) for names in (OPTIMIZERS, INITIALIZERS, REGULARIZERS)
    )
    keras.utils.set_random_seed(number)
    digits = load_pictures("digits")
    model = _network(kind, digits, initializer, regularizer)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(digits.x_train, digits.y_train, epochs=epochs, batch_size=64, verbose=0)
    accuracy = model.evaluate(digits.x_test, digits.y_test, verbose=0)[1]
    kernels = [np.asarray(w) for w in model.trainable_weights if len(w.shape) > 1]
    options = "" if kind == "wide residual" else f", {initializer}, {regularizer}"
    name = f"{kind}, {optimizer}{options}"
    return name, accuracy, max(kernels, key=np.size)


def _network(kind: str, digits: Any, initializer: str, regularizer: str) -> Any:
    shape, layers = digits.x_train.shape[1:], keras.layers
    if kind == "wide residual":
        return wide_resnet(shape, digits.classes, k=1)
    options = {
        "kernel_initializer": initializer,
        "kernel_regularizer": None if regularizer == "none" else regularizer,
        "activation": "relu",
    }
    if kind == "dense":
        hidden = [layers.Flatten(), layers.Dense(96, **options)]
        hidden += [layers.Dropout(0.2), layers.Dense(64, **options)]
    else:
        hidden = [layers.Conv2D(16, 3, **options), layers.BatchNormalization()]
        hidden += [layers.Conv2D(32, 3, **options), layers.GlobalMaxPooling2D()]
    return keras.Sequential([keras.Input(shape), *hidden, layers.Dense(digits.classes)])


if __name__ == "__main__":
    main()
