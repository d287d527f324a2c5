"""Eigenvalues of many small matrices, on all cores."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.utils.arrays import Floats
from keras_wm.utils.cores import usable_cores


def eigenvalues(matrices: NDArray[np.complex128]) -> Floats:
    """The eigenvalues of Hermitian matrices, in ascending order.

    Each core has a part of the matrices to itself. LAPACK is kept from sharing one
    matrix among cores, which makes matrices of this size several times slower.

    Args:
        matrices: Shape `(..., n, n)`.

    Returns:
        Shape `(..., n)`.

    Raises:
        ImportError: If the extra `slmc` is missing.
    """
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    parts = np.array_split(flat, min(usable_cores(), max(1, len(flat))))
    with _one_thread_a_matrix():
        found = (
            [np.linalg.eigvalsh(parts[0])]
            if len(parts) == 1
            # NumPy lets go of the interpreter's lock for the whole of a part.
            else list(_threads().map(np.linalg.eigvalsh, parts))
        )
    return np.concatenate(found).reshape(matrices.shape[:-1])


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cores(), "eigenvalues")


@cache
def _controller() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError as error:
        raise ImportError(
            "Diagonalizing on all cores needs threadpoolctl. Install it with: "
            'pip install "keras-wm[slmc]"'
        ) from error
    # Looking for the libraries takes longer than a small matrix, so it is done once.
    return ThreadpoolController()


@contextmanager
def _one_thread_a_matrix() -> Iterator[None]:
    with _controller().limit(limits=1, user_api="blas"):
        yield
