"""Settings that all runs of a study share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_wm.embedding.regularizer import DEFAULT_STRENGTH
from keras_wm.research.experiments.augmentation import Augmentation
from keras_wm.research.experiments.schemes import (
    GROUPS,
    HEAD,
    RECORDED,
    SCHEMES,
    group_layer,
)
from keras_wm.research.hosts.wide_resnet import WEIGHT_DECAY
from keras_wm.utils.arguments import check_choice

PAPER_EPOCHS = 200
DIGITS_EPOCHS = 12
PAPER_BATCH = 64
DIGITS_BATCH = 32
# Optimizers of training from scratch: the papers' own, and Adam.
PAPERS, ADAM = OPTIMIZERS = ("papers", "adam")
# The mark that the papers propose, and our own. Experiments with many runs do not
# try the other marks in every way, and only with one seed.
MAIN_MARKS = ("random", "default", "anchored")
# The largest number of seeds for attacks that train a network again.
FEW_SEEDS = 2
# The number of columns of X that belong to one bit alone.
COLUMNS = {"direct": 1, "diff": 2}


@dataclass(frozen=True)
class Settings:
    """The host network, its data, its training and its marks.

    `Settings("cifar10")` are those of the papers: WRN-10-4, 200 epochs.

    Attributes:
        data: `"digits"`, `"cifar10"` or an `.npz` file, see
            `keras_wm.research.datasets.load_pictures`.
        epochs: Epochs of training from scratch. `None` is the papers' 200, or 12 for
            the digits.
        seeds: Number of networks of each kind.
        n: Number of blocks in each group of the wide residual network.
        k: Widening factor of the network.
        batch: Batch size. `None` is the papers' 64, or 32 for the digits, which are
            few.
        group: Group of the network whose second convolution carries the mark.
        bits: T, length of the message. `None` is the default of each mark: the papers'
            256, and 64 for the default mark.
        marks: Marks to compare, by their names in `schemes.SCHEMES`.
        weight_decay: Weight decay of every kernel. The papers report the default,
            5e-4; their reference code has none.
        optimizer: `"papers"`, SGD with momentum and a schedule, or `"adam"`, Adam with
            a constant rate of 1e-3. Only for training from scratch.
        decoupled: Whether `BitErrorRate` embeds marks with the margin loss by steps of
            their own, as it does by default outside of experiments.
        families: Families of attacks to try, see `studies.resistance.attacks_on`.
            `None` is all. The experiments of the papers ignore it.

    Raises:
        ValueError: If a number is not positive, a mark is unknown, or a mark does not
            fit its layer.
    """

    data: str = "digits"
    epochs: int | None = None
    seeds: int = 5
    n: int = 1
    k: int = 4
    batch: int | None = None
    group: int = 2
    bits: int | None = None
    marks: tuple[str, ...] = RECORDED
    weight_decay: float = WEIGHT_DECAY
    optimizer: str = PAPERS
    decoupled: bool = False
    families: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "seeds", "n", "k", "batch", "bits"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Expected {name} >= 1. Received: {name}={value!r}")
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if not 0 <= self.weight_decay < 1:
            raise ValueError(
                "Expected 0 <= weight_decay < 1. Received: "
                f"weight_decay={self.weight_decay!r}"
            )
        if self.group not in GROUPS:
            raise ValueError(f"Expected group 2, 3 or 4. Received: {self.group!r}")
        unknown = [mark for mark in self.marks if mark not in SCHEMES]
        if unknown:
            raise ValueError(
                f"Expected marks among {', '.join(SCHEMES)}. Received: "
                f"{', '.join(unknown)}"
            )
        layer = group_layer(self.group)
        for mark in self.marks:
            if not self.fits(mark, layer):
                raise ValueError(
                    f"The mark {mark!r} with {self.bits_of(mark)} bits does not fit "
                    f"{layer!r}, whose filters have M={self.filter_size(layer)} "
                    "weights: direct needs one weight per bit, diff two. Use fewer "
                    "bits, a later group, a wider network or other marks."
                )

    def filter_size(self, layer: str) -> int:
        """Returns M, the number of weights of a filter in a layer that is marked."""
        widths = {group_layer(group): self.k << group + 2 for group in GROUPS}
        return max(widths.values()) if layer == HEAD else 9 * widths[layer]

    def fits(self, mark: str, layer: str) -> bool:
        """Returns whether a layer has enough weights per filter for a mark."""
        columns = COLUMNS.get(SCHEMES[mark].projection, 0)
        return columns * self.bits_of(mark) <= self.filter_size(layer)

    def bits_of(self, mark: str) -> int:
        """Returns T, the length of a mark's message."""
        return SCHEMES[mark].bits if self.bits is None else self.bits

    def repeated_marks(self, seed: int) -> tuple[str, ...]:
        """Returns the marks to compare for a seed, in experiments with many runs."""
        return self.main_marks if seed else self.marks

    @property
    def main_marks(self) -> tuple[str, ...]:
        """The marks that are in `MAIN_MARKS`; all marks if none is."""
        return tuple(mark for mark in self.marks if mark in MAIN_MARKS) or self.marks

    @property
    def training_epochs(self) -> int:
        """Epochs of training from scratch."""
        return self.epochs or (DIGITS_EPOCHS if self.data == "digits" else PAPER_EPOCHS)

    @property
    def batch_size(self) -> int:
        """Number of pictures in a batch."""
        return self.batch or (DIGITS_BATCH if self.data == "digits" else PAPER_BATCH)

    def strength(self, mark: str) -> float | None:
        """Returns the strength lambda of a mark: the default of the regularizer.

        It is the papers' 0.01 for the cross-entropy. On the digits, networks train for
        1/300 of the papers' steps. That is too few for direct and diff, which change
        only one or two weights per bit, so they get 0.1. `None` lets `BitErrorRate`
        embed the mark.
        """
        if self.decoupled and SCHEMES[mark].loss == "margin":
            return None
        if self.data == "digits" and mark in ("direct", "diff"):
            return 0.1
        return DEFAULT_STRENGTH[SCHEMES[mark].loss]

    @property
    def further_epochs(self) -> int:
        """Epochs of a second training, such as fine-tuning.

        As many as from scratch, as in the papers; on the digits two thirds of that, so
        that each experiment takes minutes.
        """
        epochs = self.training_epochs
        return max(1, 2 * epochs // 3) if self.data == "digits" else epochs

    @property
    def augmentation(self) -> Augmentation | None:
        """Augmentation of training pictures; `None` for digits, which it only blurs."""
        return None if self.data == "digits" else Augmentation()

    @property
    def host(self) -> dict[str, Any]:
        """The settings that a network depends on, as they are recorded with a run."""
        settings = asdict(self) | {
            # Identify a data file by its name only, not by its folder.
            "data": Path(self.data).stem,
            "epochs": self.training_epochs,
            "batch": self.batch_size,
        }
        # These select the runs of a study, and change no network.
        del settings["seeds"], settings["marks"], settings["families"]
        # Results that were recorded before these could be chosen do not name them.
        for name, default in (("optimizer", PAPERS), ("decoupled", False)):
            if settings[name] == default:
                del settings[name]
        return settings

    @property
    def title(self) -> str:
        """A short description of the data, the host network and its epochs."""
        network = f"WRN-{6 * self.n + 4}-{self.k}"
        return f"{Path(self.data).stem}, {network}, {self.training_epochs} epochs"
