"""One family of errors for whatever goes wrong with a model file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.utils.text import printable


@contextmanager
def blamed_on(path: str) -> Iterator[None]:
    """Names the file in every error, and makes every error a `ModelFileError`.

    Args:
        path: The path or URL of the file that is read.

    Raises:
        ModelFileError: For whatever is raised within.
    """
    shown = printable(path, most=1000)
    try:
        yield
    except ModelFileError as error:
        raise type(error)(f"{shown}: {error}") from error.__cause__
    except MemoryError as error:
        raise UnsafeFileError(
            f"{shown}: asks for more memory than there is, or than Limits.memory_bytes "
            "allows in a sandbox."
        ) from error
    # On damaged input, h5py and zipfile raise most of what there is to raise, and a
    # remote file system raises exceptions of its own.
    except Exception as error:
        reason = f"{type(error).__name__}: {printable(str(error))}"
        raise ModelFileError(
            f"{shown}: cannot be read; it may be damaged or truncated ({reason})."
        ) from error
