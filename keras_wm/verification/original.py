"""The change of a suspect model from the owner's original, which is tested for marks.

The weights of the host network are most of the noise in which a mark is searched, and
the owner knows them. In the difference from the original, the remaining noise is only
what fine-tuning and other marks have added.

A score is exact for any array that does not depend on the recipient's key. Nothing here
does: neither the choice of a kernel of the original nor the difference from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from keras_wm.files import Kernel, ModelFile
from keras_wm.utils.arrays import Floats

CHANGE = "change from the original"


class Original:
    """The kernels of the owner's original model.

    Args:
        model: The open model. All its kernels are read.
    """

    def __init__(self, model: ModelFile) -> None:
        self._kernels: dict[tuple[int, ...], list[NDArray[np.floating]]] = {}
        for kernel in model.kernels:
            values = kernel.read()
            if np.isfinite(values).all():
                self._kernels.setdefault(kernel.shape, []).append(values)

    def changes(self, kernels: Sequence[Kernel]) -> list[Kernel]:
        """Returns the changes of those kernels whose shape the original has."""
        return [
            self._change(kernel) for kernel in kernels if kernel.shape in self._kernels
        ]

    def _change(self, kernel: Kernel) -> Kernel:
        def read() -> NDArray[np.floating]:
            suspect = kernel.read()
            if not np.isfinite(suspect).all():
                return suspect
            # Layers can have other names or another order in the suspect.
            candidates = self._kernels[kernel.shape]
            changes = (change_from(suspect, original) for original in candidates)
            # The nearest one.
            return min(changes, key=lambda change: float(np.vdot(change, change)))

        note = f"{kernel.note}; {CHANGE}" if kernel.note else CHANGE
        return replace(kernel, read=read, note=note)


def change_from(
    suspect: NDArray[np.floating], original: NDArray[np.floating]
) -> Floats:
    """Returns the part of each filter that is not a multiple of the original's filter.

    So scaled filters count as unchanged.

    Args:
        suspect: The suspect's kernel, filters last.
        original: The original's kernel, of the same shape.
    """
    flat = suspect.astype(np.float64).reshape(-1, suspect.shape[-1])
    base = original.astype(np.float64).reshape(flat.shape)
    squares = np.einsum("ml,ml->l", base, base)
    products = np.einsum("ml,ml->l", flat, base)
    factors = np.divide(
        products, squares, out=np.zeros_like(squares), where=squares > 0
    )
    difference: Floats = flat - base * factors
    # Equal kernels leave rounding errors, which are not evidence.
    if np.linalg.norm(difference) < 1e-7 * np.linalg.norm(flat):
        difference[:] = 0
    return difference.reshape(suspect.shape)
