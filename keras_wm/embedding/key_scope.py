"""The keys that are at hand while a model is loaded."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from contextvars import ContextVar

from keras_wm.scheme.key import WatermarkKey

_AT_HAND: ContextVar[tuple[WatermarkKey, ...]] = ContextVar("keys", default=())


@contextlib.contextmanager
def keys(*keys: WatermarkKey) -> Iterator[None]:
    """Lets models that are loaded or cloned inside find their keys again.

    A saved model holds no key, only its commitment. Inside this scope a
    `WatermarkRegularizer` that is rebuilt from a config gets the key that the
    commitment belongs to; outside it embeds nothing, and says so.

    Args:
        *keys: The keys to offer. Scopes nest.

    Example:

    ```python
    with keras_wm.keys(key):
        model = keras.saving.load_model("checkpoint.keras")
    ```
    """
    for key in keys:
        if not isinstance(key, WatermarkKey):
            raise TypeError(
                f"Expected keys of type WatermarkKey. Received: {type(key).__name__}"
            )
    # Keras knows the class only once its module has been imported.
    importlib.import_module("keras_wm.embedding.regularizer")
    token = _AT_HAND.set((*_AT_HAND.get(), *keys))
    try:
        yield
    finally:
        _AT_HAND.reset(token)


def find_key(commitment: str) -> WatermarkKey | None:
    """The key at hand that has this commitment."""
    for key in reversed(_AT_HAND.get()):
        if key.commitment == commitment:
            return key
    return None
