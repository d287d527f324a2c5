"""The scope in which regularizers that are rebuilt from a config find their keys."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from keras_wm.scheme.key import WatermarkKey, check_key

_KEYS_IN_SCOPE: ContextVar[tuple[WatermarkKey, ...]] = ContextVar("keys", default=())


@contextlib.contextmanager
def keys(*keys: WatermarkKey) -> Iterator[None]:
    """Provides keys to the models that are loaded, cloned or unpickled inside it.

    A saved model does not contain its key, only the key's commitment (a SHA-256
    digest). When Keras rebuilds a `WatermarkRegularizer` inside this scope, the
    regularizer finds the key with that commitment and continues to embed the mark.
    Without its key it is inactive: it adds only the host's own penalty, and a
    warning says so.

    Args:
        *keys: The `WatermarkKey`s to provide, any number. The keys of outer scopes
            remain available in nested ones.

    Raises:
        TypeError: If an argument is not a `WatermarkKey`.

    Example:

    ```python
    key = keras_wm.WatermarkKey.load("owner.key")
    with keras_wm.keys(key):
        model = keras.saving.load_model("checkpoint.keras")
    ```
    """
    for key in keys:
        check_key(key)
    token = _KEYS_IN_SCOPE.set((*_KEYS_IN_SCOPE.get(), *keys))
    try:
        yield
    finally:
        _KEYS_IN_SCOPE.reset(token)


def find_key(commitment: str) -> WatermarkKey | None:
    """Returns the key in scope that has this commitment, or `None`."""
    innermost_first = reversed(_KEYS_IN_SCOPE.get())
    return next((key for key in innermost_first if key.commitment == commitment), None)
