"""What is found in a model file."""

from __future__ import annotations

from dataclasses import dataclass

from keras_wm.files.kernel import Kernel


@dataclass(frozen=True)
class Contents:
    """The format of a file, for humans, and the kernels in it."""

    format: str
    kernels: list[Kernel]


@dataclass(frozen=True)
class ModelFile:
    """An open model file.

    Attributes:
        path: The path or URL it was opened by.
        format: What kind of file it is, by its content.
        kernels: Every array of floats with two axes or more that the model
            computes with, in the file's order.
    """

    path: str
    format: str
    kernels: list[Kernel]
