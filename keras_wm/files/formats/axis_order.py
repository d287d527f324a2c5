"""The orders in which the axes of an array may stand that is a kernel of Keras's.

PyTorch puts the filters first, (L, D, S, S), and Keras puts them last, (S, S, D, L).
A file that says nothing about who wrote it may hold either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from keras_wm.files.contents import Kernel

_TRANSPOSED = "axes as PyTorch orders them, put into Keras's order"
_DEPTHWISE = f"{_TRANSPOSED} for a depthwise convolution"
_MOST_AXES = 5


def readings(kernel: Kernel) -> list[Kernel]:
    """An array of unknown origin as each weight that it may be.

    Args:
        kernel: The array as it is stored.

    Returns:
        The weights: as stored, and with the axes in Keras's order if PyTorch stored
        them, (L, D) as (D, L), (L, D, S) as (S, D, L) and so on; and (D, 1, S, S)
        also as the (S, S, D, 1) of a depthwise convolution.
    """
    rank = len(kernel.shape)
    if not 2 <= rank <= _MOST_AXES:
        return [kernel]
    window = range(2, rank)
    found = [kernel, _transposed(kernel, (*window, 1, 0), _TRANSPOSED)]
    if rank in (3, 4) and kernel.shape[1] == 1:
        found.append(_transposed(kernel, (*window, 0, 1), _DEPTHWISE))
    return found


def _transposed(kernel: Kernel, axes: Sequence[int], note: str) -> Kernel:
    def read() -> NDArray[np.floating]:
        return kernel.read().transpose(axes)

    shape = tuple(kernel.shape[axis] for axis in axes)
    note = f"{kernel.note}, {note}" if kernel.note else note
    return replace(kernel, shape=shape, read=read, note=note)
