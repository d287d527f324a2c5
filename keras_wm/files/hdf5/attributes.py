"""One attribute of an HDF5 object that holds text."""

from __future__ import annotations

import h5py
import numpy as np

from keras_wm.errors import UnsafeFileError
from keras_wm.files.limits import Limits
from keras_wm.utils.text import printable

_VARIABLE = h5py.string_dtype()


def text_attribute(
    holder: h5py.Group | h5py.Dataset,
    name: str,
    limits: Limits,
    limit: str = "name_chars",
) -> str | None:
    """The text of an attribute.

    Args:
        holder: The group or dataset that has the attribute.
        name: The attribute's name.
        limits: What the file may ask of this machine.
        limit: Which of the limits the length of the text has.

    Returns:
        The text, or `None` where there is no such attribute or it is no text.

    Raises:
        UnsafeFileError: If the text is too long.
    """
    if not h5py.h5a.exists(holder.id, name.encode()):
        return None
    most = getattr(limits, limit)
    attribute = h5py.h5a.open(holder.id, name.encode())
    stored = attribute.get_type()
    # An array could refer to one long text many times. A single text of variable
    # length cannot be sized before it is read, but is not larger than the file.
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
    text = np.empty((), f"S{fixed_bytes}" if fixed_bytes else _VARIABLE)
    attribute.read(text)
    value: bytes | str = text.item()
    return value
