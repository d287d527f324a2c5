"""The checkpoint of a network from before it was marked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from keras_wm.alignment.reference import check_alignable
from keras_wm.embedding.marked_layers import find_marked_layers
from keras_wm.embedding.publishing import NO_LIMITS, publish
from keras_wm.files import open_model
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.verification import verify

if TYPE_CHECKING:
    from keras_wm.files.keras_model import KerasModel

_FIRST = (
    "Pass checkpoint= to the first attach, before any training with a mark. Or save "
    "the network from before the mark with keras_wm.publish, and leave checkpoint= out."
)


def save_checkpoint(
    model: KerasModel, path: str | os.PathLike[str], key: WatermarkKey
) -> Path:
    """Saves a network that is about to be marked, without a trace of keras_wm.

    Args:
        model: A built Keras model.
        path: Output path, ending in `.keras`.
        key: The key of the mark, in its slot.

    Returns:
        The path.

    Raises:
        AlignmentError: If the model's config does not show how its layers are
            connected.
        FileExistsError: If the file exists.
        ValueError: If the path has another suffix, or the model carries a mark already.
    """
    target = Path(path)
    if target.suffix != ".keras":
        raise ValueError(
            "Expected the path of a checkpoint, ending in '.keras'. "
            f"Received: checkpoint={str(target)!r}"
        )
    if target.exists():
        raise FileExistsError(
            f"{str(target)!r} exists already and is not overwritten: it may be the "
            "only copy of a network from before its mark. Choose another name."
        )
    _check_is_unmarked(model, key)
    with open_model(model, NO_LIMITS) as model_file:
        check_alignable(model_file)
    return publish(model, target, overwrite=False)


def _check_is_unmarked(model: KerasModel, key: WatermarkKey) -> None:
    """Raises ValueError if a model has a mark's penalty, or the key's mark itself."""
    names = [repr(marked.name) for marked in find_marked_layers(model)]
    if names:
        raise ValueError(
            f"{model.name!r} has a mark on {', '.join(names)} already, so a checkpoint "
            f"of it can know the key. {_FIRST}"
        )
    # The penalty can have been detached or lost in a file, after it had been trained.
    found = verify(model, key, limits=NO_LIMITS, slots=key.slot + 1)
    if found.marked:
        raise ValueError(
            f"{model.name!r} carries the mark of this key already, in {found.layer}, "
            f"so a checkpoint of it knows the key. {_FIRST}"
        )
