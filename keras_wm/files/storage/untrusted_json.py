"""Parsing of untrusted JSON."""

from __future__ import annotations

import json
from typing import Any

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.limits import Limits, vet_limit

_SEPARATORS = (b",", b"[", b"{")


def parse_json(text: bytes, limits: Limits) -> Any:
    """Parses JSON.

    Args:
        text: UTF-8 text.
        limits: Limits on the resources that the text can use.

    Raises:
        ModelFileError: If the text is not JSON, or is nested too deeply for Python.
        UnsafeFileError: If it has too many values, or an object with a duplicate key.
    """
    # A value of three bytes, such as `{},`, takes twenty times as many in Python.
    values = sum(map(text.count, _SEPARATORS))
    vet_limit(limits, "json_values", values, f"JSON of about {values:,} values, more")
    try:
        return json.loads(text.decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError("it should be JSON, and is not.") from error


def parse_config(text: bytes, limits: Limits) -> Any:
    """Parses a model's config like `parse_json`, or returns `None` if it is damaged.

    A damaged config is not an error, because the weights can be read without it.
    """
    try:
        return parse_json(text, limits)
    except ModelFileError:
        return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise UnsafeFileError(
            "its JSON has a duplicate key, so that two readers can see different "
            "contents: do not use it."
        )
    return members
