r"""The exact model: double exchange between itinerant electrons and classical spins.

On a lattice of N sites with unit vectors S_i (Nagai & Tomiya 2023, arXiv:2306.11527),

\[ H = -t \sum_{\langle ij \rangle, s} (c^\dagger_{is} c_{js} + \mathrm{h.c.})
   + \frac{J}{2} \sum_i S_i \cdot c^\dagger_i \sigma c_i - \mu \sum_i n_i. \]

For fixed spins the electrons are free, and the trace over them is exact. With the 2N
eigenvalues E_n of the single-particle matrix h(S), a spin configuration has the weight

\[ W(S) = \prod_n (1 + e^{-\beta (E_n - \mu)}). \]
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.spins import checked_spins
from keras_wm.utils.arrays import Floats
from keras_wm.utils.cores import usable_cores

_PARAMETERS = ("beta", "mu", "J", "t")
# Matrix entries that are held in memory at once: 128 MB of complex numbers.
_MAX_ENTRIES = 1 << 23


@dataclass(frozen=True)
class DoubleExchange:
    r"""Electrons on a lattice, coupled to a classical spin at each site.

    Args:
        lattice: Lattice of the electrons and spins.
        beta: Inverse temperature 1 / T. T, mu, J and t share one unit of energy, which
            is t itself if t = 1.
        mu: Chemical potential; 0 is half filling.
        J: Coupling between electrons and spins. Its sign changes no weight.
        t: Hopping amplitude.

    Raises:
        ValueError: If beta is not positive, or a parameter is not a finite number.

    Example:

    ```python
    model = DoubleExchange(square_lattice(6), beta=20.0)
    spins = random_spins(np.random.default_rng(1), chains=4, sites=36)
    model.log_weight(spins)  # shape (4,)
    ```
    """

    lattice: Lattice
    beta: float
    mu: float = 0.0
    J: float = 1.0
    t: float = 1.0

    def __post_init__(self) -> None:
        for name in _PARAMETERS:
            value = getattr(self, name)
            if not isinstance(value, Real) or not isfinite(value):
                raise ValueError(
                    f"Expected a finite number. Received: {name}={value!r}"
                )
            # Models with beta=5, 5.0 or np.float32(5) are equal and print alike.
            object.__setattr__(self, name, float(value))
        if self.beta <= 0:
            raise ValueError(
                f"Expected a positive inverse temperature. Received: beta={self.beta!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the lattice's extent and the parameters, for a file of JSON."""
        parameters = {name: getattr(self, name) for name in _PARAMETERS}
        return {"extent": list(self.lattice.extent), **parameters}

    def hamiltonian(self, spins: ArrayLike) -> NDArray[np.complex128]:
        r"""Returns the single-particle matrix.

        \[ h(S) = T \otimes 1_2 + \frac{J}{2} S \cdot \sigma \]

        with \(T_{ij} = -t\) for each bond between i and j.

        Args:
            spins: Unit vectors, shape `(..., N, 3)`.

        Returns:
            Hermitian matrices, shape `(..., 2N, 2N)`. Row 2i is spin up at site i, row
            2i + 1 is spin down.

        Raises:
            ValueError: If `spins` are not unit vectors on this lattice.
        """
        half = self.J / 2 * checked_spins(spins, self.lattice.sites)
        x, y, z = np.moveaxis(half, -1, 0)
        count = 2 * self.lattice.sites
        matrix = np.empty((*half.shape[:-2], count, count), np.complex128)
        matrix[...] = np.kron(-self.t * self.lattice.bonds, np.eye(2))
        up = np.arange(0, count, 2)
        down = up + 1
        matrix[..., up, up] += z
        matrix[..., down, down] -= z
        matrix[..., up, down] = x - 1j * y
        matrix[..., down, up] = x + 1j * y
        return matrix

    def electrons(self, spins: ArrayLike) -> Electrons:
        """Diagonalises the electrons' Hamiltonian for fixed spins.

        Args:
            spins: Unit vectors, shape `(..., N, 3)`.

        Raises:
            ValueError: If `spins` are not unit vectors on this lattice.
        """
        array = checked_spins(spins, self.lattice.sites)
        flat = array.reshape(-1, *array.shape[-2:])
        batch = max(1, _MAX_ENTRIES // (2 * self.lattice.sites) ** 2)
        parts = np.split(flat, range(batch, len(flat), batch))
        levels = [_eigenvalues(self.hamiltonian(part)) for part in parts]
        shape = (*array.shape[:-2], 2 * self.lattice.sites)
        return Electrons(np.concatenate(levels).reshape(shape), self.beta, self.mu)

    def log_weight(self, spins: ArrayLike) -> Floats:
        r"""Computes \(\ln W(S)\), shape `(...)`; see `Electrons.log_weight`."""
        return self.electrons(spins).log_weight


@dataclass(frozen=True)
class Electrons:
    """Free electrons in the field of fixed spins.

    Attributes:
        levels: Single-particle energies E_n in ascending order, shape `(..., 2N)`.
        beta: Inverse temperature.
        mu: Chemical potential.
    """

    levels: Floats
    beta: float
    mu: float

    @property
    def log_weight(self) -> Floats:
        r"""\(\ln W = \sum_n \ln(1 + e^{-\beta (E_n - \mu)})\), shape `(...)`."""
        # `logaddexp` does not overflow at low temperatures.
        logs = np.logaddexp(0, -self.beta * (self.levels - self.mu))
        return _sum_over_levels(logs)

    @property
    def occupations(self) -> Floats:
        r"""Fermi functions \(f_n = 1 / (1 + e^{\beta (E_n - \mu)})\), `(..., 2N)`."""
        from scipy.special import expit

        shares: Floats = expit(-self.beta * (self.levels - self.mu))
        return shares

    @property
    def energy(self) -> Floats:
        r"""Energy per site \(\sum_n E_n f_n / N\), in the unit of t, shape `(...)`."""
        return _sum_over_levels(self.levels * self.occupations) / self._sites

    @property
    def density(self) -> Floats:
        r"""Electrons per site \(\sum_n f_n / N\), from 0 to 2, shape `(...)`."""
        return _sum_over_levels(self.occupations) / self._sites

    @property
    def _sites(self) -> float:
        return float(self.levels.shape[-1] / 2)


def _sum_over_levels(values: Floats) -> Floats:
    sums: Floats = values.sum(axis=-1)
    return sums


def _eigenvalues(matrices: NDArray[np.complex128]) -> Floats:
    """Computes the eigenvalues of Hermitian matrices, in ascending order.

    The matrices are divided among the cores. LAPACK runs with one thread per matrix:
    several threads on one matrix of this size are several times slower.
    """
    parts = np.array_split(matrices, min(usable_cores(), max(1, len(matrices))))
    with _blas_controller().limit(limits=1, user_api="blas"):
        # NumPy releases the interpreter lock while it diagonalises a part.
        return np.concatenate(list(_threads().map(np.linalg.eigvalsh, parts)))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cores(), "eigenvalues")


@cache
def _blas_controller() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError as error:
        raise ImportError(
            "Diagonalising on all cores needs threadpoolctl. Install it with: "
            'pip install "keras-wm[slmc]"'
        ) from error
    # Created once: looking up the BLAS libraries takes longer than a small matrix.
    return ThreadpoolController()
