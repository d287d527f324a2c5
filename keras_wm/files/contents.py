"""What is found in a model file."""

from __future__ import annotations

from dataclasses import dataclass

from keras_wm.files.kernel import Kernel


@dataclass(frozen=True)
class Contents:
    """The format of a file, for humans, and the kernels in it."""

    format: str
    kernels: list[Kernel]
