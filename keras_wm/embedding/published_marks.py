"""Whether a published file carries the marks that the model in memory has."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from keras_wm.embedding.marked_layers import find_marked_layers
from keras_wm.files import Limits
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.verification import verify

# The owner's model is trusted, however large it is.
_NO_LIMITS = Limits(search_entries=sys.maxsize)


def check_marks_in_file(model: Any, written: Path, target: Path, missing: str) -> None:
    """Verifies the marks of a model in the file that it was saved to.

    Args:
        model: The marked Keras model.
        written: The file.
        target: The path that the file is for.
        missing: `"refuse"` or `"warn"`, for a mark that the file does not have.

    Raises:
        ValueError: If a mark that the model has is missing in the file, unless
            `missing` is `"warn"`.
    """
    layers: dict[WatermarkKey, list[str]] = {}
    for marked in find_marked_layers(model):
        if marked.regularizer.key is not None:
            layers.setdefault(marked.regularizer.key, []).append(marked.name)
    for key, names in layers.items():
        found = verify(written, key, limits=_NO_LIMITS, slots=key.slot + 1)
        if found.marked:
            continue
        if not verify(model, key, limits=_NO_LIMITS, slots=key.slot + 1).marked:
            warnings.warn(
                f"{str(target)!r} is written without a mark that can be proven: the "
                f"mark on {', '.join(map(repr, names))} is not complete in the model "
                f"(bit error rate {found.ber:.2g}). Train it with "
                "keras_wm.BitErrorRate() among the callbacks, and publish the weights "
                "of an epoch with a bit error rate of 0.",
                stacklevel=4,
            )
            continue
        message = (
            f"The mark on {', '.join(map(repr, names))} is in the model in memory, but "
            f"is not in the file {str(target)!r} (verdict {found.verdict!r}). Keras "
            "probably does not save this layer: keep each layer in an attribute, or in "
            "a list that is not inside another list."
        )
        if missing == "refuse":
            raise ValueError(
                f"{message} Nothing is written. To write the file without the mark, "
                'use missing="warn".'
            )
        warnings.warn(message, stacklevel=4)
