"""The linear effective model: a Heisenberg model of the spins themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.spins import checked_spins
from keras_wm.utils.arrays import Floats


@dataclass(frozen=True, eq=False)
class LinearModel:
    r"""Heisenberg model with one coupling per shell of neighbours.

    \[ \ln W_\mathrm{eff}
       = K_0 + \sum_n K_n \sum_{\langle ij \rangle_n} S_i \cdot S_j. \]

    Attributes:
        lattice: Lattice of the spins.
        couplings: Couplings \(K_n = \beta J_n\) of the nearest shells, shape
            `(shells,)`. Further shells are not coupled.
        offset: Constant K_0.
    """

    lattice: Lattice
    couplings: Floats
    offset: float = 0.0

    @property
    def matrix(self) -> Floats:
        """Coupling of every pair of sites, shape `(N, N)`."""
        shells = self.lattice.first_shells(len(self.couplings))
        matrix = np.zeros((self.lattice.sites, self.lattice.sites))
        for coupling, shell in zip(self.couplings, shells, strict=True):
            matrix[shell.pairs] = coupling
        return matrix

    def log_weight(self, spins: ArrayLike) -> Floats:
        r"""Computes \(\ln W_\mathrm{eff}\), shape `(...)` for spins `(..., N, 3)`."""
        array = checked_spins(spins, self.lattice.sites)
        fields = self.matrix @ array
        sums: Floats = (fields * array).sum(axis=(-2, -1))
        return self.offset + sums / 2


def shell_sums(spins: ArrayLike, lattice: Lattice, shells: int | None = None) -> Floats:
    r"""Computes \(\sum_{\langle ij \rangle_n} S_i \cdot S_j\), each pair counted once.

    Args:
        spins: Unit vectors, shape `(..., N, 3)`.
        lattice: Lattice of the spins.
        shells: Number of shells, nearest first; `None` for all.

    Returns:
        Shape `(..., shells)`.
    """
    array = checked_spins(spins, lattice.sites)
    pairs = np.stack([shell.pairs for shell in lattice.first_shells(shells)])
    fields = np.einsum("nij,...jc->...nic", pairs.astype(np.float64), array)
    sums: Floats = np.einsum("...nic,...ic->...n", fields, array) / 2
    return sums


def fit_linear(
    lattice: Lattice,
    spins: ArrayLike,
    log_weights: ArrayLike,
    shells: int | None = None,
) -> LinearModel:
    """Fits a linear model to exact weights by least squares.

    Args:
        lattice: Lattice of the spins.
        spins: Configurations, shape `(samples, N, 3)`.
        log_weights: Their exact ln W, shape `(samples,)`.
        shells: Number of coupled shells; `None` for all.

    Raises:
        ValueError: If there are not more samples than couplings.
    """
    sums = shell_sums(spins, lattice, shells)
    if sums.ndim != 2 or len(sums) <= sums.shape[1]:
        raise ValueError(
            f"A fit of {sums.shape[-1]} couplings needs more samples than couplings. "
            f"Received: spins of shape {np.shape(spins)}"
        )
    columns = np.column_stack([np.ones(len(sums)), sums])
    solution = np.linalg.lstsq(columns, np.asarray(log_weights), rcond=None)
    offset, *couplings = solution[0]
    return LinearModel(lattice, np.array(couplings), float(offset))
