"""Saving a marked model without a trace of the mark's key or of this package."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import keras

from keras_wm.embedding.marked_layers import (
    find_marked_layers,
    replace_penalties,
    sublayers,
)
from keras_wm.embedding.regularizer import WatermarkRegularizer
from keras_wm.utils.atomic import atomic_write

_SUFFIXES = (".keras", ".h5")
_BLOCK = 2**24


def publish(
    model: Any,
    path: str | os.PathLike[str],
    include_optimizer: bool = False,
    overwrite: bool = True,
) -> Path:
    """Saves a model as if it had never heard of keras_wm.

    The file holds the architecture, the weights bit for bit and the host's own
    regularizers, and loads in a Python without keras_wm. It holds no key, no
    commitment, no class of ours. The model in memory is left as it was, also when
    writing fails, and the file appears whole or not at all.

    Args:
        model: A Keras model, marked or not.
        path: Where to, ending in `.keras`, `.h5` or `.weights.h5`.
        include_optimizer: Whether the training configuration and the
            optimizer's state go along. They hold gradients of the penalty.
            Defaults to `False`.
        overwrite: Whether a file that is there may be replaced. Defaults to
            `True`, as in `model.save`.

    Returns:
        The path.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the suffix is none of these, or the file would still
            mention the mark. Nothing is written then.
        FileExistsError: If the file exists and `overwrite` is `False`.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model. Received: {type(model).__name__}")
    target = Path(path)
    if target.suffix not in _SUFFIXES:
        raise ValueError(
            f"Expected a path ending in '.keras', '.h5' or '.weights.h5'. "
            f"Received: {str(target)!r}"
        )
    traces = _traces(model)
    with atomic_write(target, overwrite) as temporary:
        with _clean(model, include_optimizer):
            _save(model, temporary, include_optimizer)
        _check_clean(temporary, target, traces)
    return target


def _save(model: Any, path: Path, include_optimizer: bool) -> None:
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    elif path.suffix == ".h5":
        model.save(path, include_optimizer=include_optimizer)
    else:
        model.save(path)


@contextmanager
def _clean(model: Any, include_optimizer: bool) -> Iterator[None]:
    """The model without marks and, if so wished, uncompiled, for a while."""
    undo = replace_penalties(model, lambda mark: mark.regularizer)
    if not include_optimizer:
        # `include_optimizer=False` is ignored for `.keras`, and for models inside.
        for layer in sublayers(model):
            if getattr(layer, "compiled", False):
                undo.append(_set_aside(layer, "optimizer", None))
                undo.append(_set_aside(layer, "compiled", False))
    try:
        yield
    finally:
        for restore in reversed(undo):
            restore()


def _set_aside(model: Any, name: str, meanwhile: Any) -> Callable[[], None]:
    value = getattr(model, name)
    setattr(model, name, meanwhile)
    return lambda: setattr(model, name, value)


def _traces(model: Any) -> list[bytes]:
    """What must not be found in the file."""
    marks = find_marked_layers(model)
    commitments = {str(mark.regularizer.get_config()["commitment"]) for mark in marks}
    names = {WatermarkRegularizer.__name__, *commitments}
    return [name.encode() for name in sorted(names)]


def _check_clean(written: Path, target: Path, traces: list[bytes]) -> None:
    for name, content in _contents(written):
        for trace in _found(content, traces):
            raise ValueError(
                f"{str(target)!r} is not written: its {name} would still mention "
                f"{trace.decode()!r}. Some layer keeps the regularizer where keras_wm "
                "does not look; keep it out of that layer's get_config, or use "
                "keras_wm.attach."
            )


def _contents(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    yield name, member
    else:
        with path.open("rb") as file:
            yield "content", file


def _found(content: IO[bytes], traces: list[bytes]) -> Iterator[bytes]:
    """The traces in a stream of any size, read block by block."""
    overlap = b""
    while block := content.read(_BLOCK):
        window = overlap + block
        yield from (trace for trace in traces if trace in window)
        overlap = window[-max(map(len, traces)) :]
