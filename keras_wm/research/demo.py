"""The whole job on a real network: embed, watch, publish, verify, compare."""

from __future__ import annotations

import json
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


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does.

    Attributes:
        data: `"digits"`, `"cifar10"` or an `.npz` file, see `load_pictures`.
        epochs: How long to train.
        bits: T, the length of the message.
        layer: The convolution to mark.
        n: Blocks in a group of the wide residual network.
        k: Its widening factor.
        seed: Of the networks' initial weights and the order of the pictures.
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
    """A trained network of the demo, and what was found in its published file.

    Attributes:
        file: The published file.
        history: Figures by name, before training and after each epoch.
        verification: What `verify` found in the file.
        kernel_std: The standard deviation of the kernel's weights.
        mean_filter_std: The standard deviation of its mean filter's.
    """

    file: Path
    history: dict[str, list[float]]
    verification: Verification
    kernel_std: float
    mean_filter_std: float

    @property
    def test_error(self) -> float:
        """The share of test pictures that the trained network gets wrong."""
        return 1.0 - self.history["test_accuracy"][-1]

    def to_dict(self) -> dict[str, Any]:
        """The figures, as plain Python values."""
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
        settings: What to do.
        folder: Where the key, the published files, the logs and the figure go.
        console: What to report to.

    Returns:
        The networks `"marked"` and `"unmarked"`.
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
            for name in ("marked", "unmarked")
        }
    _write_record(folder / "demo.json", settings, networks)
    plot_training(
        networks["marked"].history["ber"],
        {name: network.history["test_accuracy"] for name, network in networks.items()},
        {name: network.verification.z for name, network in networks.items()},
    ).savefig(folder / "demo.png")
    console.print(_closing_table(networks))
    console.print(f"Figure, files and key: {folder}")
    return networks


def _train(
    name: str,
    settings: DemoSettings,
    pictures: Pictures,
    key: WatermarkKey,
    folder: Path,
    logs: Path,
    progress: Progress,
) -> Network:
    keras.utils.set_random_seed(settings.seed)
    mark = WatermarkRegularizer(key, regularizer=wide_resnet_decay(WEIGHT_DECAY))
    model = wide_resnet(
        pictures.x_train.shape[1:],
        pictures.classes,
        settings.n,
        settings.k,
        WEIGHT_DECAY,
        {settings.layer: mark} if name == "marked" else None,
    )
    steps = -(-len(pictures.x_train) // BATCH) * settings.epochs
    model.compile(
        paper_optimizer(steps),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    report = _Report(settings, pictures, key, progress, name)
    callbacks = [report, keras.callbacks.TensorBoard(logs / name)]
    if name == "marked":
        callbacks.insert(0, BitErrorRate(log_dir=logs / name / "bits"))
    model.fit(
        pictures.x_train,
        pictures.y_train,
        batch_size=BATCH,
        epochs=settings.epochs,
        callbacks=callbacks,
        verbose=0,
    )
    kernel = np.asarray(model.get_layer(settings.layer).kernel)
    file = publish(model, folder / f"{name}.keras")
    return Network(
        file=file,
        history=report.history,
        verification=verify(file, key),
        kernel_std=float(kernel.std()),
        mean_filter_std=float(kernel.mean(axis=-1).std()),
    )


class _Report(keras.callbacks.Callback):
    """Measures a network before training and after each epoch, and shows it."""

    def __init__(
        self,
        settings: DemoSettings,
        pictures: Pictures,
        key: WatermarkKey,
        progress: Progress,
        name: str,
    ) -> None:
        super().__init__()
        self._settings, self._pictures, self._key = settings, pictures, key
        self._progress, self._name = progress, name
        self._task = progress.add_task(name, total=settings.epochs, state="")
        self.history: dict[str, list[float]] = {"ber": [], "test_accuracy": []}

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._show(0)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._show(epoch + 1)
        if logs is not None:
            logs["test_accuracy"] = self.history["test_accuracy"][-1]

    def _show(self, epochs: int) -> None:
        pictures = self._pictures
        logits = self.model.predict(pictures.x_test, verbose=0)
        accuracy = float(np.mean(logits.argmax(axis=1) == pictures.y_test))
        kernel = np.asarray(self.model.get_layer(self._settings.layer).kernel)
        found = detect(kernel, self._key)
        self.history["ber"].append(found.ber)
        self.history["test_accuracy"].append(accuracy)
        state = f"BER {found.ber:.3f}  test accuracy {accuracy:.3f}"
        if self._name == "marked":
            self._progress.console.print(
                f"epoch {epochs:>3}  {state}  smallest z {found.z_min:+.2f}"
            )
        self._progress.update(self._task, completed=epochs, state=state)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>8}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed}/{task.total} epochs"),
        TextColumn("{task.fields[state]}"),
        console=console,
    )


def _owner_key(path: Path, bits: int) -> WatermarkKey:
    """The folder's key, so that a second demo never replaces the first one's."""
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
    """The first free `run-<number>`: TensorBoard would mix the runs of one folder."""
    for number in count(1):
        folder = parent / f"run-{number}"
        if not folder.exists():
            break
    return folder


def _write_record(
    path: Path, settings: DemoSettings, networks: dict[str, Network]
) -> None:
    record = {name: network.to_dict() for name, network in networks.items()}
    content = json.dumps({"settings": asdict(settings), **record}, indent=2)
    path.write_text(content + "\n", encoding="utf-8")


def _closing_table(networks: dict[str, Network]) -> Table:
    table = Table("", *networks, title="Read from the published files")
    found = [network.verification for network in networks.values()]
    rows: dict[str, list[str]] = {
        "verdict": [one.verdict.upper() for one in found],
        "bit errors": [f"{one.bits - one.matches} of {one.bits}" for one in found],
        "p-value, corrected": [format_p(one.log10_p) for one in found],
        "p of the bits alone": [format_p(one.log10_p_hard) for one in found],
        "best of": [f"{one.tried} kernels" for one in found],
        "test error": [f"{100 * one.test_error:.2f} %" for one in networks.values()],
        "kernel std": [f"{one.kernel_std:.4f}" for one in networks.values()],
        "mean-filter std": [f"{one.mean_filter_std:.5f}" for one in networks.values()],
        "file": [one.file.name for one in networks.values()],
    }
    for name, values in rows.items():
        table.add_row(name, *values)
    return table
