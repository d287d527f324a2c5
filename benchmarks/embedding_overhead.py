"""Measures the duration of a training step with a mark, relative to one without.

    python benchmarks/embedding_overhead.py [--seconds 30] [--case TEXT]

Four copies of a network take turns, step by step, on the same batch: two are not
marked, one is, and one is marked through an anchor. The cost is the mean step of the
marked copy over that of an unmarked one, and of the anchored over that of the marked
copy. A mean over many steps is needed, because a mark has a step of its own before one
in 16 to 64 of them. The floor is the same ratio of the two unmarked copies, which would
be 1 without noise. Keras chooses the device, and KERAS_BACKEND the backend.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

from keras_wm import WatermarkKey, WatermarkRegularizer, measure_anchor
from keras_wm.embedding.mark_steps import MarkSteps
from keras_wm.embedding.marked_layers import find_marked_layers
from keras_wm.research.hosts.plain_cnn import plain_cnn
from keras_wm.research.hosts.wide_resnet import wide_resnet, wide_resnet_decay

Build = Callable[[WatermarkRegularizer | None], keras.Model]

DECAY = 5e-4
CLASSES = 10
# Sequences of a batch, tokens of a sequence, length of a token's vector.
TOKENS = (32, 64, 512)


def wrn_10_4(mark: WatermarkRegularizer | None) -> keras.Model:
    """Returns the papers' host network, WRN-10-4 for 32 x 32 pictures."""
    if mark is not None:
        mark.regularizer = wide_resnet_decay(DECAY)
    regularizers = {"conv3_block1_conv2": mark} if mark else None
    return wide_resnet(
        (32, 32, 3), CLASSES, weight_decay=DECAY, regularizers=regularizers
    )


def cnn(mark: WatermarkRegularizer | None) -> keras.Model:
    """Returns four convolutions for 32 x 32 pictures; the last one is marked."""
    model = plain_cnn((32, 32, 3), CLASSES)
    model.get_layer("conv4").kernel.regularizer = mark
    return model


def transformer_block(mark: WatermarkRegularizer | None) -> keras.Model:
    """Returns a block with self-attention; the feed-forward network is marked."""
    _, length, width = TOKENS
    inputs = keras.Input((length, width))
    attention = layers.MultiHeadAttention(8, width // 8)
    x = layers.LayerNormalization()(inputs + attention(inputs, inputs))
    hidden = layers.Dense(4 * width, activation="gelu", kernel_regularizer=mark)(x)
    x = layers.LayerNormalization()(x + layers.Dense(width)(hidden))
    pooled = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(pooled))


def dense(width: int) -> Build:
    """Returns the builder of a network with one square dense layer."""

    def build(mark: WatermarkRegularizer | None) -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((width,)),
                layers.Dense(width, activation="relu", kernel_regularizer=mark),
                layers.Dense(CLASSES),
            ]
        )

    return build


# For each case, the network and the shape of a batch.
CASES: dict[str, tuple[Build, tuple[int, ...]]] = {
    "WRN-10-4, batch 64": (wrn_10_4, (64, 32, 32, 3)),
    "transformer block, 32 x 64 tokens": (transformer_block, TOKENS),
    "CNN, batch 32": (cnn, (32, 32, 32, 3)),
    "Dense 512 x 512, batch 32": (dense(512), (32, 512)),
    "Dense 1000 x 1000, batch 32": (dense(1000), (32, 1000)),
    "Dense 4096 x 4096, batch 32": (dense(4096), (32, 4096)),
}


@dataclass(frozen=True)
class Steps:
    """Durations of the steps of the four copies, in seconds.

    Attributes:
        first: The first step of each copy, by its name.
        later: The other steps, shape `(turns,)`, by the copy's name.
    """

    first: dict[str, float]
    later: dict[str, np.ndarray]


def measure(build: Build, shape: tuple[int, ...], seconds: float) -> Steps:
    """Measures the steps of the four copies, which take turns."""
    rng = np.random.default_rng(0)
    batch = rng.normal(size=shape).astype("float32"), rng.integers(0, CLASSES, shape[0])
    copies: dict[str, keras.Model] = {}
    marks: dict[str, MarkSteps] = {}
    first: dict[str, float] = {}
    # The first copy also pays for what all steps share, so it is not compared.
    for name in ("again", "unmarked", "marked", "anchored"):
        key, mark = WatermarkKey.generate("me"), None
        if name == "marked":
            mark = WatermarkRegularizer(key)
        elif name == "anchored":
            (marked,) = find_marked_layers(copies["marked"])
            anchor = measure_anchor(copies["marked"], marked.layer, batch[0])
            mark = WatermarkRegularizer(key, anchor=anchor)
        copies[name] = build(mark)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        copies[name].compile(keras.optimizers.Adam(), loss)
        marks[name] = MarkSteps(copies[name])
        first[name] = duration(copies[name], batch)
        for _ in range(2):
            duration(copies[name], batch)
        marks[name].move(0, None)
    later: dict[str, list[float]] = {name: [] for name in copies}
    names, end, turn = list(copies), time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        turn += 1
        # Rotate the order, so that no copy always runs after the same other one.
        for name in names[turn % 4 :] + names[: turn % 4]:
            later[name].append(duration(copies[name], batch, marks[name], turn))
    return Steps(first, {name: np.array(values) for name, values in later.items()})


def duration(
    model: keras.Model,
    batch: tuple[np.ndarray, np.ndarray],
    mark: MarkSteps | None = None,
    turn: int = 0,
) -> float:
    """Returns the seconds that a training step takes, with the mark's step before it.

    This is what `BitErrorRate` does at the begin of a step of `fit`.
    """
    begin = time.perf_counter()
    if mark is not None and mark.is_due(turn, None):
        mark.move(turn, None)
    model.train_on_batch(*batch)
    return time.perf_counter() - begin


def compared(numerator: np.ndarray, denominator: np.ndarray) -> dict[str, float]:
    """Returns the ratio and the difference in seconds of two mean steps.

    Both with their upper 95 % limits, by bootstrap of the turns.
    """
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(numerator), (2000, len(numerator)))
    above, below = numerator[draws].mean(axis=1), denominator[draws].mean(axis=1)
    return {
        "ratio": float(numerator.mean() / denominator.mean()),
        "ratio_limit": float(np.percentile(above / below, 95)),
        "extra": float(numerator.mean() - denominator.mean()),
        "extra_limit": float(np.percentile(above - below, 95)),
    }


def record(steps: Steps) -> dict[str, Any]:
    """Returns the figures of a case."""
    later = steps.later
    return {
        "turns": len(later["marked"]),
        "step_seconds": float(later["unmarked"].mean()),
        "cost": compared(later["marked"], later["unmarked"]),
        "anchored": compared(later["anchored"], later["marked"]),
        "floor": compared(later["again"], later["unmarked"]),
        "first_step": steps.first,
    }


def main() -> None:
    """Runs the cases and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="for each case")
    parser.add_argument("--case", default="", help="only cases with this text")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    table = Table(
        "case",
        "step, ms",
        "marked / unmarked (95 % limit)",
        "ms more (95 % limit)",
        "anchored / marked (95 % limit)",
        "floor (95 % limit)",
        "first step, s more",
        title=f"Training step with and without a mark ({keras.backend.backend()})",
    )
    records: dict[str, Any] = {}
    for name, (build, shape) in CASES.items():
        if arguments.case.lower() not in name.lower():
            continue
        figures = record(measure(build, shape, arguments.seconds))
        records[name] = figures
        cost, floor, first = figures["cost"], figures["floor"], figures["first_step"]
        anchored = figures["anchored"]
        table.add_row(
            name,
            f"{1e3 * figures['step_seconds']:.2f}",
            f"{cost['ratio']:.3f} ({cost['ratio_limit']:.3f})",
            f"{1e3 * cost['extra']:.2f} ({1e3 * cost['extra_limit']:.2f})",
            f"{anchored['ratio']:.3f} ({anchored['ratio_limit']:.3f})",
            f"{floor['ratio']:.3f} ({floor['ratio_limit']:.3f})",
            f"{first['marked'] - first['unmarked']:.2f}",
        )
    Console(width=120).print(table)
    if arguments.json:
        text = {"backend": keras.backend.backend(), "cases": records}
        arguments.json.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
