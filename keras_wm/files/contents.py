"""What is found in a model file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keras_wm.files.kernel import Kernel


def no_config() -> None:
    """The config of a model that comes with none."""


@dataclass(frozen=True)
class Contents:
    """What a reader finds in a file.

    Attributes:
        format: What kind of file it is, by its content.
        weights: Every array of floats, with one axis or more, that the model computes
            with, in the file's order.
        config: Reads the model's config, as plain data; `None` where there is none,
            or none that can be read. Nothing about it may be taken for granted.
    """

    format: str
    weights: list[Kernel]
    config: Callable[[], Any] = no_config

    @property
    def kernels(self) -> list[Kernel]:
        """The weights of two axes or more, which can carry a mark."""
        return [one for one in self.weights if len(one.shape) > 1]


@dataclass(frozen=True)
class ModelFile(Contents):
    """An open model file; for its other attributes see `Contents`.

    Attributes:
        path: The path or URL it was opened by.
    """

    path: str = field(kw_only=True)
