"""Text attributes of HDF5 objects."""

from __future__ import annotations

import h5py
import numpy as np

from keras_wm.errors import UnsafeFileError
from keras_wm.files.limits import Limits
from keras_wm.utils.text import printable

_VARIABLE_LENGTH = h5py.string_dtype()


def read_text_attribute(
    holder: h5py.Group | h5py.Dataset,
    name: str,
    limits: Limits,
    limit: str = "name_chars",
) -> str | None:
    """Reads a text attribute.

    Args:
        holder: Group or dataset that has the attribute.
        name: Name of the attribute.
        limits: Limits on the resources that the file can use.
        limit: Name of the field of `limits` that bounds the length of the text.

    Returns:
        The text, or `None` if there is no such attribute or it is not a single text.

    Raises:
        UnsafeFileError: If the text is too long.
    """
    if not h5py.h5a.exists(holder.id, name.encode()):
        return None
    most = getattr(limits, limit)
    attribute = h5py.h5a.open(holder.id, name.encode())
    stored = attribute.get_type()
    # The elements of an array could all refer to the same long text. The size of a
    # single text of variable length is unknown before it is read, but it is not
    # larger than the file.
    if attribute.get_space().get_simple_extent_type() != h5py.h5s.SCALAR:
        return None
    if stored.get_class() != h5py.h5t.STRING:
        return None
    fixed_bytes = 0 if stored.is_variable_str() else stored.get_size()
    text = "" if fixed_bytes > most else _read(attribute, fixed_bytes)
    if max(fixed_bytes, len(text)) > most:
        raise UnsafeFileError(
            f"the attribute {name!r} of '{printable(holder.name)}' is longer than "
            f"Limits.{limit}={most:,}."
        )
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def _read(attribute: h5py.h5a.AttrID, fixed_bytes: int) -> bytes | str:
    # `holder.attrs[name]` takes several times as long.
    text = np.empty((), f"S{fixed_bytes}" if fixed_bytes else _VARIABLE_LENGTH)
    attribute.read(text)
    value: bytes | str = text.item()
    return value
