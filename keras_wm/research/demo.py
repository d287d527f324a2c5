"""The demo: embed, watch, publish and verify a mark in a real network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from keras_wm.embedding.callback import BitErrorRate
from keras_wm.embedding.publishing import publish
from keras_wm.embedding.regularizer import WatermarkRegularizer
from keras_wm.plots import plot_training
from keras_wm.research.datasets import Pictures, load_pictures
from keras_wm.research.hosts.wide_resnet import (
    WEIGHT_DECAY,
    paper_optimizer,
    wide_resnet,
    wide_resnet_decay,
)
from keras_wm.scheme.capacity import USUAL_BITS
from keras_wm.scheme.detection import detect, format_p
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.result import Verification
from keras_wm.verification.verification import verify

BATCH = 64
OWNER = "keras_wm demo"
MARKED, UNMARKED = "marked", "unmarked"


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demo.

    Attributes:
        data: `"digits"`, `"cifar10"` or an `.npz` file, see `load_pictures`.
        epochs: Number of epochs.
        bits: Length T of the message.
        layer: Name of the convolution to mark.
        n: Number of blocks in a group of the wide residual network.
        k: Widening factor of the network.
        seed: Random seed of the initial weights and the order of the pictures.
    """

    data: str = "digits"
    epochs: int = 20
    bits: int = USUAL_BITS
    layer: str = "conv3_block1_conv2"
    n: int = 1
    k: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Network:
    """A trained network of the demo, with the verification of its published file.

    Attributes:
        file: The published file.
        history: Values before training and after each epoch: `"test_accuracy"`, and
            `"ber"` for the marked network.
        verification: The result of `verify` for the file.
        kernel_std: Standard deviation of the marked layer's kernel.
        mean_filter_std: Standard deviation of that kernel's mean filter.
    """

    file: Path
    history: dict[str, list[float]]
    verification: Verification
    kernel_std: float
    mean_filter_std: float

    @property
    def test_error(self) -> float:
        """Share of the test pictures that the trained network misclassifies."""
        return 1.0 - self.history["test_accuracy"][-1]

    def to_dict(self) -> dict[str, Any]:
        """Returns the results as plain Python values."""
        return {
            "file": self.file.name,
            "test_error": self.test_error,
            "kernel_std": self.kernel_std,
            "mean_filter_std": self.mean_filter_std,
            "verification": self.verification.to_dict() | {"source": self.file.name},
            "history": self.history,
        }


def run_demo(
    settings: DemoSettings, folder: Path, console: Console
) -> dict[str, Network]:
    """Trains a marked network and its unmarked twin, and verifies both files.

    Args:
        settings: Settings of the demo.
        folder: Output folder for the key, the published files, the logs and the
            figure.
        console: Console for the progress and the results.

    Returns:
        The networks by their names, `"marked"` and `"unmarked"`.
    """
    pictures = load_pictures(settings.data)
    folder.mkdir(parents=True, exist_ok=True)
    key = _owner_key(folder / "owner.key", settings.bits)
    logs = _new_folder(folder / "logs")
    console.print(
        f"WRN-{6 * settings.n + 4}-{settings.k} on {pictures.name}, "
        f"{len(pictures.x_train)} pictures: {key.bits} bits go into "
        f"{settings.layer}. Watch it with: tensorboard --logdir {logs.parent}"
    )
    with _progress(console) as progress:
        networks = {
            name: _train(name, settings, pictures, key, folder, logs, progress)
            for name in (MARKED, UNMARKED)
        }
    record = {name: network.to_dict() for name, network in networks.items()}
    text = json.dumps({"settings": asdict(settings), **record}, indent=2)
    (folder / "demo.json").write_text(text + "\n", encoding="utf-8")
    plot_training(
        networks[MARKED].history["ber"],
        {name: network.history["test_accuracy"] for name, network in networks.items()},
        {name: network.verification.z for name, network in networks.items()},
    ).savefig(folder / "demo.png")
    console.print(_closing_table(networks))
    console.print(f"Figure, files and key: {folder}")
    return networks


def _compiled_network(
    name: str, settings: DemoSettings, pictures: Pictures, key: WatermarkKey
) -> keras.Model:
    """Returns the untrained network, with the mark's penalty if it is marked."""
    keras.utils.set_random_seed(settings.seed)
    mark = WatermarkRegularizer(key, regularizer=wide_resnet_decay(WEIGHT_DECAY))
    marks = {settings.layer: mark} if name == MARKED else None
    shape, classes = pictures.x_train.shape[1:], pictures.classes
    model = wide_resnet(shape, classes, settings.n, settings.k, regularizers=marks)
    steps = -(-len(pictures.x_train) // BATCH) * settings.epochs
    model.compile(
        paper_optimizer(steps),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _train(
    name: str,
    settings: DemoSettings,
    pictures: Pictures,
    key: WatermarkKey,
    folder: Path,
    logs: Path,
    progress: Progress,
) -> Network:
    model = _compiled_network(name, settings, pictures, key)
    task = progress.add_task(name, total=settings.epochs, state="")

    def show(epochs: int, logs: Mapping[str, float]) -> None:
        state = f"test accuracy {logs['val_accuracy']:.3f}"
        if name == MARKED:
            state = f"BER {logs['ber']:.3f}  {state}"
            progress.console.print(
                f"epoch {epochs:>3}  {state}  smallest z {logs['z_min']:+.2f}"
            )
        progress.update(task, completed=epochs, state=state)

    initial = _initial_logs(model, settings.layer, pictures, key)
    show(0, initial)
    callbacks = [
        keras.callbacks.TensorBoard(logs / name),
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: show(epoch + 1, logs)
        ),
    ]
    if name == MARKED:
        callbacks.insert(0, BitErrorRate(log_dir=logs / name / "bits"))
    history = model.fit(
        pictures.x_train,
        pictures.y_train,
        batch_size=BATCH,
        epochs=settings.epochs,
        validation_data=(pictures.x_test, pictures.y_test),
        callbacks=callbacks,
        verbose=0,
    ).history
    curves = {
        curve: [initial[figure], *history[figure]]
        for curve, figure in (("ber", "ber"), ("test_accuracy", "val_accuracy"))
        if figure in history
    }
    kernel = np.asarray(model.get_layer(settings.layer).kernel)
    file = publish(model, folder / f"{name}.keras")
    return Network(
        file=file,
        history=curves,
        verification=verify(file, key),
        kernel_std=float(kernel.std()),
        mean_filter_std=float(kernel.mean(axis=-1).std()),
    )


def _initial_logs(
    model: Any, layer: str, pictures: Pictures, key: WatermarkKey
) -> dict[str, float]:
    """Returns the figures of an untrained network, named as in Keras's logs."""
    figures = model.evaluate(
        pictures.x_test, pictures.y_test, return_dict=True, verbose=0
    )
    detection = detect(np.asarray(model.get_layer(layer).kernel), key)
    return {
        "val_accuracy": figures["accuracy"],
        "ber": detection.ber,
        "z_min": detection.z_min,
    }


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>8}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed}/{task.total} epochs"),
        TextColumn("{task.fields[state]}"),
        console=console,
    )


def _owner_key(path: Path, bits: int) -> WatermarkKey:
    """Returns the folder's key; a second demo keeps the first one's key."""
    if not path.exists():
        WatermarkKey.generate(OWNER, bits).save(path)
    key = WatermarkKey.load(path)
    if key.bits != bits:
        raise ValueError(
            f"{str(path)!r} is a key of {key.bits} bits. Expected {bits}. "
            "Choose another folder with --out."
        )
    return key


def _new_folder(parent: Path) -> Path:
    """Returns the first unused folder `run-<number>`.

    TensorBoard would mix several runs in one folder.
    """
    folders = (parent / f"run-{number}" for number in count(1))
    return next(folder for folder in folders if not folder.exists())


def _closing_table(networks: dict[str, Network]) -> Table:
    table = Table("", title="Read from the published files")
    columns = []
    for name, network in networks.items():
        result = network.verification
        table.add_column(name)
        columns.append(
            {
                "verdict": result.verdict.upper(),
                "bit errors": f"{result.bits - result.matches} of {result.bits}",
                "p-value, corrected": format_p(result.log10_p),
                "p of the bits alone": format_p(result.log10_p_hard),
                "best of": f"{result.tried} kernels",
                "test error": f"{100 * network.test_error:.2f} %",
                "kernel std": f"{network.kernel_std:.4f}",
                "mean-filter std": f"{network.mean_filter_std:.5f}",
                "file": network.file.name,
            }
        )
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table
