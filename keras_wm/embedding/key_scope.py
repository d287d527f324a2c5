"""The scope in which regularizers that are rebuilt from a config find their keys."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from keras_wm.scheme.key import WatermarkKey, check_key
from keras_wm.scheme.live_keys import live_keys

# `None` outside of any scope.
_KEYS_IN_SCOPE: ContextVar[tuple[WatermarkKey, ...] | None] = ContextVar(
    "keys", default=None
)


@contextlib.contextmanager
def keys(*keys: WatermarkKey) -> Iterator[None]:
    """Limits which keys are given to models that are loaded, cloned or unpickled.

    A saved model does not contain its key, only the key's commitment (a SHA-256
    digest). When Keras rebuilds a `WatermarkRegularizer`, it finds the key by that
    commitment among all `WatermarkKey` objects that are alive in this process, and
    continues to embed the mark. A scope is needed in two cases only:

    - Several programs share a process, and a model must not find the key of another
      one. Inside the scope, only the given keys are found.
    - A model is loaded without its key on purpose: `with keras_wm.keys():`.

    Without its key, a regularizer is inactive: it adds only the host's own penalty. A
    warning says so, except in a scope without any keys.

    Args:
        *keys: The `WatermarkKey`s to provide, any number. The keys of outer scopes
            remain available in nested ones.

    Raises:
        TypeError: If an argument is not a `WatermarkKey`.

    Example:

    ```python
    key = keras_wm.WatermarkKey.load("owner.key")
    model = keras.saving.load_model("checkpoint.keras")  # continues to be marked
    with keras_wm.keys():
        unmarked = keras.saving.load_model("checkpoint.keras")  # does not
    ```
    """
    for key in keys:
        check_key(key)
    token = _KEYS_IN_SCOPE.set((*(_KEYS_IN_SCOPE.get() or ()), *keys))
    try:
        yield
    finally:
        _KEYS_IN_SCOPE.reset(token)


def find_key(commitment: str, slot: int, anchor: str) -> WatermarkKey | None:
    """Returns the key with this commitment: in the scope, or else any that is alive.

    An opened key cannot be moved to another slot. It has to be in the scope, because
    whoever wrote its file chose its commitment.

    Args:
        commitment: The commitment.
        slot: The slot in which the key is returned.
        anchor: Digest of the anchor that the key must have in this slot, or an empty
            string if it must have none.
    """
    scope = _KEYS_IN_SCOPE.get()
    # The innermost key of the scope comes first.
    keys = live_keys() if scope is None else reversed(scope)
    for key in keys:
        if key.commitment != commitment:
            continue
        if key.opened and (scope is None or key.slot != slot):
            continue
        in_slot: WatermarkKey = key.in_slot(slot)
        if in_slot.anchor_digest == anchor:
            return in_slot
    return None


def is_without_keys() -> bool:
    """Returns whether the current scope has no keys, so that none are wanted."""
    return _KEYS_IN_SCOPE.get() == ()
