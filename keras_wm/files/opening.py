"""What is in a model, wherever it is: in a file, or in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from keras_wm.files import DEFAULT_LIMITS, Limits, ModelFile, Sandbox


@contextmanager
def open_model(
    model: Any, limits: Limits = DEFAULT_LIMITS, sandbox: bool | Sandbox = False
) -> Iterator[ModelFile]:
    """What is in a model file, or in a model in memory."""
    if isinstance(model, (str, os.PathLike)):
        with ExitStack() as stack:
            if sandbox is True:
                sandbox = stack.enter_context(Sandbox(limits))
            if sandbox:
                opened = sandbox.open_model_file(model)
            else:
                from keras_wm.files import open_model_file

                opened = open_model_file(model, limits)
            yield stack.enter_context(opened)
    elif hasattr(model, "weights") and hasattr(model, "name"):
        from keras_wm.files.keras_model import config_in_memory, weights_in_memory

        yield ModelFile(
            "Keras model",
            weights_in_memory(model),
            lambda: config_in_memory(model),
            path=f"model {model.name!r} in memory",
        )
    else:
        raise TypeError(
            "Expected the path of a model file or a Keras model. "
            f"Received: {type(model).__name__}"
        )
