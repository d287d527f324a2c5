"""Eigenvalues of many small matrices on all cores."""

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
    """Computes the eigenvalues of Hermitian matrices, in ascending order.

    The matrices are divided among the cores. LAPACK runs with one thread per matrix:
    several threads on one matrix of this size are several times slower.

    Args:
        matrices: Shape `(..., n, n)`.

    Returns:
        Shape `(..., n)`.

    Raises:
        ImportError: If the extra `slmc` is not installed.
    """
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    parts = np.array_split(flat, min(usable_cores(), max(1, len(flat))))
    with _single_threaded_blas():
        values = (
            [np.linalg.eigvalsh(parts[0])]
            if len(parts) == 1
            # NumPy releases the interpreter lock while it diagonalises a part.
            else list(_threads().map(np.linalg.eigvalsh, parts))
        )
    return np.concatenate(values).reshape(matrices.shape[:-1])


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cores(), "eigenvalues")


@cache
def _controller() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError as error:
        raise ImportError(
            "Diagonalising on all cores needs threadpoolctl. Install it with: "
            'pip install "keras-wm[slmc]"'
        ) from error
    # Created once: looking up the BLAS libraries takes longer than a small matrix.
    return ThreadpoolController()


@contextmanager
def _single_threaded_blas() -> Iterator[None]:
    with _controller().limit(limits=1, user_api="blas"):
        yield
