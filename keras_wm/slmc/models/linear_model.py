"""The linear effective model: a Heisenberg model of the spins as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.spins import checked_spins
from keras_wm.utils.arrays import Floats


@dataclass(frozen=True, eq=False)
class LinearModel:
    r"""What couples the spins of each shell, with its own strength.

    \[ \ln W_\mathrm{eff}
       = K_0 + \sum_n K_n \sum_{\langle ij \rangle_n} S_i \cdot S_j. \]

    Attributes:
        lattice: Where the spins are.
        couplings: \(K_n = \beta J_n\) of the nearest shells, shape `(shells,)`.
        offset: K_0.
    """

    lattice: Lattice
    couplings: Floats
    offset: float = 0.0

    @property
    def matrix(self) -> Floats:
        """The coupling of every pair of sites, shape `(N, N)`."""
        shells = self.lattice.first_shells(len(self.couplings))
        matrix = np.zeros((self.lattice.sites, self.lattice.sites))
        for coupling, shell in zip(self.couplings, shells, strict=True):
            matrix[shell.pairs] = coupling
        return matrix

    def log_weight(self, spins: ArrayLike) -> Floats:
        r"""\(\ln W_\mathrm{eff}\), shape `(...)`, of spins `(..., N, 3)`."""
        array = checked_spins(spins, self.lattice.sites)
        fields = self.matrix @ array
        sums: Floats = (fields * array).sum(axis=(-2, -1))
        return self.offset + sums / 2


def shell_sums(spins: ArrayLike, lattice: Lattice, shells: int | None = None) -> Floats:
    r"""\(\sum_{\langle ij \rangle_n} S_i \cdot S_j\), each pair once.

    Args:
        spins: Unit vectors, shape `(..., N, 3)`.
        lattice: Where they are.
        shells: How many of the nearest; `None` is all.

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
    """The linear model that is closest to weights, by least squares.

    Args:
        lattice: Where the spins are.
        spins: Configurations, shape `(samples, N, 3)`.
        log_weights: Their ln W, shape `(samples,)`.
        shells: How many shells are coupled; `None` is all.

    Raises:
        ValueError: If there are not more samples than couplings.
    """
    sums = shell_sums(spins, lattice, shells)
    if sums.ndim != 2 or len(sums) <= sums.shape[1]:
        raise ValueError(
            f"To fit {sums.shape[-1]} couplings, more samples than that are needed. "
            f"Received: spins of the shape {np.shape(spins)}"
        )
    columns = np.column_stack([np.ones(len(sums)), sums])
    offset, *couplings = np.linalg.lstsq(columns, np.asarray(log_weights))[0]
    return LinearModel(lattice, np.array(couplings), float(offset))
