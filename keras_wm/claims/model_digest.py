"""Digests of a model: of its file, and of its weights in whatever file they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from keras_wm.claims.checks import check_digest
from keras_wm.errors import ClaimError
from keras_wm.files import Limits, ModelSource, Sandbox, open_model
from keras_wm.files.contents import Stored
from keras_wm.files.keras_model import KerasModel
from keras_wm.files.kernels.quantized_parts import is_integer
from keras_wm.files.storage.location import locate
from keras_wm.files.storage.source import naming_errors
from keras_wm.utils.fields import join_fields

_DOMAIN = "keras_wm weights 1"
# Types whose values are hashed in their own format. Values of all smaller floats are
# hashed as float32, which holds them exactly.
_FORMATS = {"float64": "<f8", "int8": "i1", "uint8": "u1"}
_FLOAT32 = "<f4"
# Numbers that are converted at once.
_BLOCK = 2**20
_FILE_BLOCK = 2**22


@dataclass(frozen=True)
class ModelDigest:
    """Digests of a model.

    Attributes:
        weights: Digest of the weights, see `weight_digest`.
        file: SHA-256 of the file in hexadecimal, or `None` for a model in memory or in
            several files.
    """

    weights: str
    file: str | None = None

    def __post_init__(self) -> None:
        check_digest("weights", self.weights)
        if self.file is not None:
            check_digest("file", self.file)

    @classmethod
    def of(
        cls,
        model: ModelSource,
        limits: Limits | None = None,
        sandbox: bool | Sandbox = False,
    ) -> ModelDigest:
        """Computes the digests of a model.

        Args:
            model: Model file, as its path or URL or as an open binary file, or a Keras
                model.
            limits: `Limits` on the resources that reading the file can use.
            sandbox: Whether to read the weights in a child process, or the `Sandbox`
                to read them in.

        Returns:
            A `ModelDigest`.

        Raises:
            ModelFileError: If the file cannot be read.
            ClaimError: If the model has no weights.
        """
        return cls(weight_digest(model, limits, sandbox), _file_digest(model))


def weight_digest(
    model: ModelSource,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
) -> str:
    """Computes the digest of a model's weights.

    The digest is the same for all files that store the same arrays, such as the
    `.keras`, `.weights.h5` and `.safetensors` files of one model, and for the model in
    memory. Names, order, optimizer and random seeds do not matter. If one weight
    changes, the digest changes. docs/claim.md specifies it.

    Args:
        model: Model file, as its path or URL or as an open binary file, or a Keras
            model.
        limits: `Limits` on the resources that reading the file can use. `None` uses the
            default limits. Defaults to `None`.
        sandbox: Whether to read the file in a child process, or the `Sandbox` to read
            it in. Defaults to `False`.

    Returns:
        64 hexadecimal digits.

    Raises:
        ModelFileError: If the file cannot be read.
        ClaimError: If the model has no weights.

    Example:

    ```python
    keras_wm.claims.weight_digest("model.keras")
    ```
    """
    with open_model(model, limits, sandbox) as opened:
        # One array at a time is in memory.
        digests = sorted(map(_array_digest, filter(_is_weight, opened.arrays())))
    if not digests:
        raise ClaimError(
            f"Expected a model with weights. Received: {opened.path}, which has none."
        )
    content = join_fields(_DOMAIN, len(digests)) + b"".join(digests)
    return hashlib.sha256(content).hexdigest()


def _is_weight(array: Stored) -> bool:
    """Returns whether an array counts: floats, or the codes of a quantized kernel."""
    return array.is_float or is_integer(array)


def _array_digest(array: Stored) -> bytes:
    shape = ",".join(map(str, array.shape))
    digest = hashlib.sha256(join_fields(_DOMAIN, array.dtype, shape))
    for block in _blocks(array.read(), _FORMATS.get(array.dtype, _FLOAT32)):
        digest.update(block.data)
    return digest.digest()


def _blocks(values: NDArray[np.generic], form: str) -> Iterator[NDArray[np.generic]]:
    """Yields all values, the last axis fastest, in one format."""
    flat = values.reshape(-1)
    for first in range(0, len(flat), _BLOCK):
        block = flat[first : first + _BLOCK].astype(form)
        if block.dtype.kind == "f":
            # Formats and processors do not keep the bits of NaN when they convert it.
            block[np.isnan(block)] = np.nan
        yield block.view(np.uint8)


def _file_digest(model: ModelSource) -> str | None:
    if isinstance(model, KerasModel):
        return None
    if not isinstance(model, (str, os.PathLike)):
        return _sha256(model)
    path = os.fspath(model)
    with naming_errors(path):
        location = locate(path)
        if location.is_folder():
            return None
        with location.open() as file:
            return _sha256(file)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(_FILE_BLOCK):
        digest.update(block)
    return digest.hexdigest()
