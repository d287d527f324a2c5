"""Measures the duration of a training step with a mark, relative to one without.

    python benchmarks/embedding_overhead.py [--steps 40] [--json FILE]

Three copies of a network take turns, step by step, on the same batch: one is marked and
two are not. The median of marked / unmarked is the cost. The median of unmarked /
unmarked is the noise floor, which would be 1 without noise. Keras chooses the device,
and KERAS_BACKEND the backend.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from keras_wm import WatermarkKey, WatermarkRegularizer
from keras_wm.research.hosts.wide_resnet import wide_resnet, wide_resnet_decay

Arrays = tuple[np.ndarray, np.ndarray]
DECAY = 5e-4


def wrn_10_4(key: WatermarkKey | None) -> keras.Model:
    """Returns the papers' host network, WRN-10-4 for 32 x 32 pictures."""
    mark = key and WatermarkRegularizer(key, regularizer=wide_resnet_decay(DECAY))
    regularizers = {"conv3_block1_conv2": mark} if mark else None
    return wide_resnet((32, 32, 3), 10, weight_decay=DECAY, regularizers=regularizers)


def large_dense(key: WatermarkKey | None) -> keras.Model:
    """Returns a network with one dense layer of 4096 x 4096."""
    mark = key and WatermarkRegularizer(key)
    return keras.Sequential(
        [
            keras.Input((4096,)),
            keras.layers.Dense(4096, activation="relu", kernel_regularizer=mark),
            keras.layers.Dense(10),
        ]
    )


def pictures() -> Arrays:
    """Returns a batch of 64 pictures of 32 x 32 pixels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 32, 32, 3)).astype("float32")
    return x, rng.integers(0, 10, 64)


def vectors() -> Arrays:
    """Returns a batch of 64 vectors of length 4096."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 4096)).astype("float32"), rng.integers(0, 10, 64)


CASES = {
    "WRN-10-4, 32 x 32, T = 256": (wrn_10_4, pictures, 256),
    "Dense 4096 x 4096, T = 1024": (large_dense, vectors, 1024),
}


def measure(
    build: Callable[[WatermarkKey | None], keras.Model],
    batch: Arrays,
    bits: int,
    steps: int,
) -> dict[str, np.ndarray]:
    """Measures the steps of the three copies, which take turns.

    Returns:
        Seconds of each step, shape `(steps,)`, by the copy's name.
    """
    key = WatermarkKey.generate("benchmark", bits)
    copies = {"marked": build(key), "unmarked": build(None), "again": build(None)}
    for model in copies.values():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
        for _ in range(3):
            model.train_on_batch(*batch)
    seconds: dict[str, list[float]] = {name: [] for name in copies}
    names = list(copies)
    for turn in track(range(steps), description=f"{bits} bits", transient=True):
        # Rotate the order, so that no copy always runs after the same other one.
        for name in names[turn % 3 :] + names[: turn % 3]:
            begin = time.perf_counter()
            copies[name].train_on_batch(*batch)
            seconds[name].append(time.perf_counter() - begin)
    return {name: np.array(values) for name, values in seconds.items()}


def quartiles(ratios: np.ndarray) -> dict[str, float]:
    """Returns the median and quartiles of paired ratios.

    Also the 95 % interval of the median, by bootstrap.
    """
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    rng = np.random.default_rng(0)
    draws = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    lower, upper = np.percentile(draws, [2.5, 97.5])
    return {
        "median": float(middle),
        "quarter": float(low),
        "three_quarters": float(high),
        "median_from": float(lower),
        "median_to": float(upper),
    }


def main() -> None:
    """Runs every case and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    table = Table(
        "case",
        "step, s",
        "marked / unmarked (95 % interval)",
        "quartiles",
        "noise floor",
        title=f"Training step with and without a mark ({keras.backend.backend()})",
    )
    records: dict[str, Any] = {}
    for name, (build, batch, bits) in CASES.items():
        seconds = measure(build, batch(), bits, arguments.steps)
        cost = quartiles(seconds["marked"] / seconds["unmarked"])
        floor = quartiles(seconds["again"] / seconds["unmarked"])
        records[name] = {
            "step_seconds": float(np.median(seconds["unmarked"])),
            "ratio": cost,
            "floor": floor,
        }
        table.add_row(
            name,
            f"{np.median(seconds['unmarked']):.3f}",
            f"{cost['median']:.3f} ({cost['median_from']:.3f} to "
            f"{cost['median_to']:.3f})",
            f"{cost['quarter']:.3f} to {cost['three_quarters']:.3f}",
            f"{floor['median']:.3f}",
        )
    Console().print(table)
    if arguments.json:
        record = {"backend": keras.backend.backend(), "cases": records}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
