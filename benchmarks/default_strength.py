"""Measures whether the one line embeds a mark in any ordinary training.

    python benchmarks/default_strength.py [--seeds 3] [--json FILE]
        [--steps 150 500 2000] [--kernels conv dense64 dense512] [--trainings "SGD .1"]

Trains small networks on scikit-learn's digits with the one line and a `BitErrorRate`,
and their twins without a mark. Each cell of the table is an optimizer, or a change of
Adam and of momentum, with a number of steps and a kernel. It shows the largest bit
error rate of all seeds in the published file, the weakest verdict, and the mean
accuracies. If a training warned of its mark, it is continued as the warning says, and
the bit error rate after that is shown too. Needs the extra `demo`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import keras_wm
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import SecretSource

EPOCHS, BATCH, TRAINED = 5, 32, 1408
# The words of a warning that a mark is not complete.
INCOMPLETE = "is not complete"
VERDICTS = ("not found", "marked", "proven")

layers, optimizers = keras.layers, keras.optimizers

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "SGD .01": lambda **rest: optimizers.SGD(0.01, **rest),
    "SGD .1": lambda **rest: optimizers.SGD(0.1, **rest),
    "momentum": lambda **rest: optimizers.SGD(0.01, momentum=0.9, **rest),
    "Adam": lambda **rest: optimizers.Adam(1e-3, **rest),
    "AdamW": lambda **rest: optimizers.AdamW(1e-3, **rest),
    "Lion": lambda **rest: optimizers.Lion(1e-4, **rest),
    "Muon": lambda **rest: optimizers.Muon(1e-3, **rest),
}
CHANGES: dict[str, dict[str, Any]] = {
    "accumulation 4": {"gradient_accumulation_steps": 4},
    "clipping": {"global_clipnorm": 1.0},
    "EMA .999": {"use_ema": True, "ema_momentum": 0.999},
    "mixed_float16": {},
    "cosine": {},
}
TRAININGS = list(OPTIMIZERS) + [
    f"{name}, {change}" for name in ("Adam", "momentum") for change in CHANGES
]


def conv(mark: Any) -> list[Any]:
    """Returns the layers of a network with a marked kernel of 3 x 3 x 64 x 64."""
    return [
        layers.Reshape((8, 8, 1)),
        layers.Conv2D(64, 3, activation="relu"),
        layers.Conv2D(64, 3, activation="relu", kernel_regularizer=mark),
        layers.GlobalAveragePooling2D(),
    ]


def dense64(mark: Any) -> list[Any]:
    """Returns the layers of a network with a marked kernel of 64 x 64."""
    return [layers.Dense(64, activation="relu", kernel_regularizer=mark)]


def dense512(mark: Any) -> list[Any]:
    """Returns the layers of a network with a marked kernel of 512 x 512."""
    return [
        layers.Dense(512, activation="relu"),
        layers.Dense(512, activation="relu", kernel_regularizer=mark),
    ]


KERNELS = {"conv": conv, "dense64": dense64, "dense512": dense512}


class Batches(keras.utils.PyDataset):
    """Shuffled batches of the training digits, a given number of steps per epoch."""

    def __init__(self, x: Any, y: Any, steps: int, seed: int) -> None:
        super().__init__()
        self.x, self.y, self.steps = x, y, steps
        rng = np.random.default_rng(seed)
        self.rows = [rng.choice(len(x), BATCH, replace=False) for _ in range(steps)]

    def __len__(self) -> int:
        """Returns the number of steps."""
        return self.steps

    def __getitem__(self, index: int) -> Any:
        """Returns the inputs and labels of one step."""
        return self.x[self.rows[index]], self.y[self.rows[index]]


def digits() -> tuple[Any, Any]:
    """Returns the digits, shape `(1797, 64)` from 0 to 1, in random order."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.data))
    return (data.data[order] / 16).astype("float32"), data.target[order]


def optimizer_of(training: str, steps: int) -> Any:
    """Returns the optimizer of a training, such as `"Adam, clipping"`."""
    name, _, change = training.partition(", ")
    optimizer = OPTIMIZERS[name](**CHANGES.get(change, {}))
    if change == "cosine":
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        optimizer.learning_rate = optimizers.schedules.CosineDecay(rate, steps)
    return optimizer


def compile_model(model: Any, optimizer: Any) -> None:
    """Compiles a classifier of the digits."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])


def run(kernel: str, training: str, steps: int, seed: int) -> dict[str, Any]:
    """Trains a marked network and its twin, and returns what came out."""
    x, y = digits()
    secret = Secret(bytes([seed + 1]) * 32)
    key = keras_wm.WatermarkKey(SecretSource(secret, "study", 64, "random", "keyed"))
    result: dict[str, Any] = {"warnings": []}
    batches = Batches(x[:TRAINED], y[:TRAINED], steps // EPOCHS, seed)
    policy = "mixed_float16" if "float16" in training else "float32"
    keras.config.set_dtype_policy(policy)
    for twin in (False, True):
        keras.utils.set_random_seed(seed)
        mark = None if twin else keras_wm.WatermarkRegularizer(key)
        parts = [keras.Input((64,)), *KERNELS[kernel](mark), layers.Dense(10)]
        model = keras.Sequential(parts)
        compile_model(model, optimizer_of(training, steps))
        callbacks = [] if twin else [keras_wm.BitErrorRate()]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=callbacks)
        scores = model.evaluate(x[TRAINED:], y[TRAINED:], verbose=0, return_dict=True)
        result["unmarked" if twin else "marked"] = scores["accuracy"]
        if not twin:
            texts = [str(warning.message) for warning in caught]
            result["warnings"] = [text for text in texts if INCOMPLETE in text]
            result |= verified(model, key)
            if result["warnings"]:
                result["continued"] = continued(model, batches, training, key)
    return result


def verified(model: Any, key: Any) -> dict[str, Any]:
    """Returns bit error rate and verdict of the published file."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = keras_wm.publish(model, Path(folder, "model.keras"))
        found = keras_wm.verify(path, key)
    return {"ber": found.ber, "verdict": found.verdict}


def continued(model: Any, batches: Any, training: str, key: Any) -> float:
    """Follows the remedy of the warnings; returns the bit error rate after it."""
    if "EMA" in training:
        compile_model(model, OPTIMIZERS[training.partition(", ")[0]]())
    for _ in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            callbacks = [keras_wm.BitErrorRate()]
            model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=callbacks)
        if keras_wm.measure(model)["ber"] == 0:
            break
    return float(verified(model, key)["ber"])


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields one row of the table for each cell."""
    for kernel in options.kernels:
        for steps in options.steps:
            for training in options.trainings:
                if ", " in training and steps != 500:
                    continue
                results = [
                    run(kernel, training, steps, seed) for seed in range(options.seeds)
                ]
                yield {
                    "kernel": kernel,
                    "steps": steps,
                    "training": training,
                    "ber": max(result["ber"] for result in results),
                    "verdict": min(
                        (result["verdict"] for result in results), key=VERDICTS.index
                    ),
                    "marked": float(np.mean([result["marked"] for result in results])),
                    "unmarked": float(
                        np.mean([result["unmarked"] for result in results])
                    ),
                    "warned": sum(bool(result["warnings"]) for result in results),
                    "continued": max(
                        result.get("continued", 0.0) for result in results
                    ),
                }


def main() -> None:
    """Runs all cells and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", nargs="+", type=int, default=[150, 500, 2000])
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=TRAININGS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console, found = Console(width=110), []
    table = Table(title=f"Marks without a given strength, {options.seeds} seeds")
    names = ("kernel", "steps", "training", "BER", "verdict", "accuracy", "unmarked")
    for name in (*names, "warned", "BER after the remedy"):
        table.add_column(name)
    for row in rows(options):
        found.append(row)
        after = f"{row['continued']:.2f}" if row["warned"] else ""
        cells = [row["kernel"], str(row["steps"]), row["training"], f"{row['ber']:.2f}"]
        cells += [row["verdict"], f"{row['marked']:.3f}", f"{row['unmarked']:.3f}"]
        cells += [f"{row['warned']} of {options.seeds}" if row["warned"] else "", after]
        table.add_row(*cells)
        console.print(" | ".join(cells))
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
