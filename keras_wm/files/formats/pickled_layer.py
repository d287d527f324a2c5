"""The variables of one layer, which Keras has pickled as one object.

What the pickle says has to be what Keras's variables come to with TensorFlow, JAX or
NumPy behind them. PyTorch's hold a second pickle, which is not opened.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any, Literal

from keras_wm.errors import UnsafeFileError, UnsupportedFileError
from keras_wm.files.formats.inert_pickle import Blob, Call, Name, read_pickle
from keras_wm.files.storage.raw_array import RawArray
from keras_wm.files.storage.source import Source
from keras_wm.files.storage.streams import Window
from keras_wm.utils.text import printable

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
_LENGTH_BYTES = 2
_BUFFER_BYTES = 4096
# What NumPy can make at most, so that a size is no number of a million digits.
_MOST_AXES = 64
_LONGEST_AXIS = 2**63
_NUMPY_ARRAYS = [
    Name(f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")
]
_CODES = {"f2": "F16", "f4": "F32", "f8": "F64", Name("ml_dtypes.bfloat16"): "BF16"}
_BYTES = {"F16": 2, "F32": 4, "F64": 8, "BF16": 2}


def arrays_of_layer(
    source: Source, path: str, steps: Iterator[object]
) -> dict[str, RawArray]:
    """The arrays of floats among the variables of a layer.

    Args:
        source: The member of the archive that is the layer.
        path: Its name, for error messages.
        steps: As many items as instructions of its pickle may be followed.

    Returns:
        The arrays, by the name of their variable.

    Raises:
        UnsafeFileError: If it is not what Keras writes.
        UnsupportedFileError: If PyTorch is behind Keras's variables.
    """
    file = io.BufferedReader(Window(source.file, 0, source.size), _BUFFER_BYTES)
    start = file.read(len(_MAGIC) + _LENGTH_BYTES)
    header = file.read(int.from_bytes(start[len(_MAGIC) :], "little"))
    if not start.startswith(_MAGIC) or header.strip() != _HEADER:
        raise _unlike(path)
    match read_pickle(file, source.size, steps):
        case Call(function, _, (1, (), _, False, [dict() as variables])):
            if function not in _NUMPY_ARRAYS:
                raise _unlike(path)
        case _:
            raise _unlike(path)
    arrays: dict[str, RawArray] = {}
    seen: set[int] = set()
    for variable, value in variables.items():
        array = _array(source, f"{path}/{variable}", value)
        if not array.is_float:
            continue
        if array.start in seen:
            raise _unlike(array.path)
        seen.add(array.start)
        arrays[variable] = array
    return arrays


def _array(source: Source, path: str, value: Any) -> RawArray:
    match _state_of_array(_value_of_variable(value), path):
        case (1, tuple() as shape, dtype, bool() as is_fortran, Blob() as blob):
            code = _code(dtype)
        case _:
            raise _unlike(path)
    if len(shape) > _MOST_AXES or not all(
        type(axis) is int and 0 <= axis < _LONGEST_AXIS for axis in shape
    ):
        raise _unlike(path)
    if code in _BYTES and math.prod(shape) * _BYTES[code] != blob.size:
        raise _unlike(path)
    order: Literal["C", "F"] = "F" if is_fortran else "C"
    return RawArray(source, path, code, shape, blob.start, blob.size, order)


def _value_of_variable(variable: Any) -> Any:
    match variable:
        case Call(Name("keras.src.backend.Variable"), (), {"_value": value}):
            return value
    return variable


def _state_of_array(value: Any, path: str) -> Any:
    """What NumPy made of an array: version, shape, type, order and bytes."""
    match value:
        case Call(function, _, state) if function in _NUMPY_ARRAYS:
            return state
        case Call(Name("jax._src.array._reconstruct_array"), (function, _, state, _)):
            return state if function in _NUMPY_ARRAYS else None
        case Call(Call(_, _, (_, (), {"initial_value": array}, None)), ()):
            return _state_of_array(array, path)
        case Call(Name("torch._utils._rebuild_parameter")):
            raise UnsupportedFileError(
                f"'{printable(path)}' is pickled as PyTorch does it, which is not "
                "read. Save the model again with weights_format='h5'."
            )
    return None


def _code(dtype: Any) -> str:
    """The type of an array, as safetensors calls it, if it is one of floats."""
    match dtype:
        case Call(Name("numpy.dtype"), (Name() | str() as kind, *_), (3, "<", *_)):
            return _CODES.get(kind, "")
    return ""


def _unlike(path: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"'{printable(path)}' is pickled, and not as Keras does it. Pickles can run "
        "code: do not use this file."
    )
