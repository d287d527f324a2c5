"""What all runs of a study share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_wm.embedding.regularizer import DEFAULT_STRENGTH
from keras_wm.research.experiments.augmentation import Distortion
from keras_wm.research.experiments.schemes import GROUPS, HEAD, SCHEMES, group_layer
from keras_wm.research.hosts.wide_resnet import WEIGHT_DECAY

PAPER_EPOCHS = 200
DIGITS_EPOCHS = 12
PAPER_BATCH = 64
DIGITS_BATCH = 32
# What the papers propose, and the default. Where there are many runs, the other marks
# are not tried in every way, nor with more than one seed beside these.
MAIN_MARKS = ("random", "default")
# Attacks that train a network again are not repeated more often than this.
FEW_SEEDS = 2
# How many columns of X a bit has to itself.
COLUMNS = {"direct": 1, "diff": 2}


@dataclass(frozen=True)
class Settings:
    """The host network, its data and how long it is trained.

    The papers' are `Settings("cifar10")`: WRN-10-4, 200 epochs.

    Attributes:
        data: `"digits"`, `"cifar10"` or an `.npz` file, see
            `keras_wm.research.datasets.load_pictures`.
        epochs: How long networks are trained. `None` is the papers' 200, and 12 on
            the digits.
        seeds: How many networks of each kind.
        n: Blocks in a group of the wide residual network.
        k: Its widening factor.
        batch: Pictures a step. `None` is the papers' 64, and 32 on the digits, of
            which there are few.
        group: The group whose second convolution carries the mark.
        bits: T, the length of the message. `None` is what each mark has by default:
            the papers' 256 and our 64.
        marks: The marks that are compared, by their names in `marking.SCHEMES`.
        weight_decay: Of every kernel. Defaults to 5e-4, of which the papers write;
            their reference code has none.
        families: The families of attacks that are tried, see
            `studies.resistance.attacks_on`, which the papers' own experiments
            do not heed. `None` is all.

    Raises:
        ValueError: If a number is not positive, or there is no such mark.
    """

    data: str = "digits"
    epochs: int | None = None
    seeds: int = 5
    n: int = 1
    k: int = 4
    batch: int | None = None
    group: int = 2
    bits: int | None = None
    marks: tuple[str, ...] = tuple(SCHEMES)
    weight_decay: float = WEIGHT_DECAY
    families: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "seeds", "n", "k", "batch", "bits"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Expected {name} >= 1. Received: {name}={value!r}")
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
                    f"A mark {mark!r} of {self.bits_of(mark)} bits does not fit "
                    f"{layer!r}, whose filters have M={self.filter_size(layer)} "
                    "weights: direct needs as many as bits, diff twice as many. Choose "
                    "fewer bits, a later group, a wider network or other marks."
                )

    def filter_size(self, layer: str) -> int:
        """M, the weights in a filter of a layer that the experiments mark."""
        widths = {group_layer(group): self.k << group + 2 for group in GROUPS}
        return max(widths.values()) if layer == HEAD else 9 * widths[layer]

    def fits(self, mark: str, layer: str) -> bool:
        """Whether a layer has the columns that a mark needs."""
        columns = COLUMNS.get(SCHEMES[mark].projection, 0)
        return columns * self.bits_of(mark) <= self.filter_size(layer)

    def bits_of(self, mark: str) -> int:
        """T, the length of a mark's message."""
        return SCHEMES[mark].bits if self.bits is None else self.bits

    def repeated_marks(self, seed: int) -> tuple[str, ...]:
        """The marks that are compared with a seed where there are many runs."""
        return self.main_marks if seed else self.marks

    @property
    def main_marks(self) -> tuple[str, ...]:
        """Of the marks, those of `MAIN_MARKS`; all where there is none of these."""
        return tuple(mark for mark in self.marks if mark in MAIN_MARKS) or self.marks

    @property
    def training_epochs(self) -> int:
        """How long a network is trained from scratch."""
        if self.epochs is not None:
            return self.epochs
        return DIGITS_EPOCHS if self.data == "digits" else PAPER_EPOCHS

    @property
    def batch_size(self) -> int:
        """Pictures a step."""
        if self.batch is not None:
            return self.batch
        return DIGITS_BATCH if self.data == "digits" else PAPER_BATCH

    def strength(self, mark: str) -> float:
        """The factor lambda of a mark: the regularizer's default, and the papers'.

        On the digits a network is trained for a 300th of the papers' steps, in which
        the two marks that pull at one or two weights a bit get nowhere with 0.01.
        """
        if self.data == "digits" and mark in ("direct", "diff"):
            return 0.1
        return DEFAULT_STRENGTH[SCHEMES[mark].loss]

    @property
    def further_epochs(self) -> int:
        """How long a network that exists is trained on: in the papers, as long again.

        On the digits, two thirds as long, so that each experiment takes minutes.
        """
        epochs = self.training_epochs
        return max(1, 2 * epochs // 3) if self.data == "digits" else epochs

    @property
    def distortion(self) -> Distortion | None:
        """How training pictures are distorted: not digits, which it only blurs."""
        return None if self.data == "digits" else Distortion()

    @property
    def host(self) -> dict[str, Any]:
        """What a network depends on, for its record; not how many there are."""
        settings = asdict(self)
        # A file by its name: where it is changes nothing.
        settings |= {
            "data": Path(self.data).stem,
            "epochs": self.training_epochs,
            "batch": self.batch_size,
        }
        # How many there are of a kind, and what is done to them, changes none of them.
        del settings["seeds"], settings["marks"], settings["families"]
        return settings

    @property
    def title(self) -> str:
        """The host network and its data, in a few words."""
        network = f"WRN-{6 * self.n + 4}-{self.k}"
        return f"{Path(self.data).stem}, {network}, {self.training_epochs} epochs"
