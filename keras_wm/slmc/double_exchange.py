r"""The exact model: electrons that hop between classical spins.

Double exchange on a lattice of N sites (Nagai & Tomiya 2023, whose surrogate
`keras_wm.slmc` rebuilds):

\[ H = -t \sum_{\langle ij \rangle, s} (c^\dagger_{is} c_{js} + \mathrm{h.c.})
   + \frac{J}{2} \sum_i S_i \cdot c^\dagger_i \sigma c_i - \mu \sum_i n_i. \]

The electrons can be summed over for any spins: with the 2N eigenvalues E_n of the
single-particle matrix h(S), a configuration has the weight
\(W(S) = \prod_n (1 + e^{-\beta (E_n - \mu)})\).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_wm.slmc.eigenvalues import eigenvalues
from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.spins import checked_spins
from keras_wm.utils.arrays import Floats

_PARAMETERS = ("beta", "mu", "J", "t")
# Of all matrices that are held at once: 128 MB.
_MOST_ENTRIES = 1 << 23


@dataclass(frozen=True)
class DoubleExchange:
    r"""Electrons on a lattice, coupled to a classical spin at each site.

    Args:
        lattice: Where they are.
        beta: The inverse temperature; like mu, J and t in one unit of energy, which
            is t itself where t = 1.
        mu: The chemical potential; 0 is half filling.
        J: The coupling of the spins. Its sign makes no difference to any weight.
        t: The hopping amplitude.

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
            # So that 5 is 5.0, and NumPy's numbers are like others.
            object.__setattr__(self, name, float(value))
        if self.beta <= 0:
            raise ValueError(
                f"Expected a positive inverse temperature. Received: beta={self.beta!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """What tells the model from others, as numbers by name."""
        parameters = {name: getattr(self, name) for name in _PARAMETERS}
        return {"extent": list(self.lattice.extent), **parameters}

    def hamiltonian(self, spins: ArrayLike) -> NDArray[np.complex128]:
        r"""The single-particle matrix \(h(S) = T \otimes 1_2 + (J/2) S \cdot \sigma\).

        Args:
            spins: Unit vectors, shape `(..., N, 3)`.

        Returns:
            Hermitian matrices, shape `(..., 2N, 2N)`; row 2i is spin up at site i.

        Raises:
            ValueError: If they are not spins of the lattice.
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
        """What the electrons do in a configuration of the spins.

        Args:
            spins: Unit vectors, shape `(..., N, 3)`.

        Raises:
            ValueError: If they are not spins of the lattice.
        """
        array = checked_spins(spins, self.lattice.sites)
        flat = array.reshape(-1, *array.shape[-2:])
        at_once = max(1, _MOST_ENTRIES // (2 * self.lattice.sites) ** 2)
        levels = [
            eigenvalues(self.hamiltonian(flat[first : first + at_once]))
            for first in range(0, max(1, len(flat)), at_once)
        ]
        shape = (*array.shape[:-2], 2 * self.lattice.sites)
        return Electrons(np.concatenate(levels).reshape(shape), self.beta, self.mu)

    def log_weight(self, spins: ArrayLike) -> Floats:
        r"""\(\ln W(S)\), shape `(...)`: see `Electrons.log_weight`."""
        return self.electrons(spins).log_weight


@dataclass(frozen=True)
class Electrons:
    """Free electrons in the field of spins that stand still.

    Attributes:
        levels: E_n, in ascending order, shape `(..., 2N)`.
        beta: The inverse temperature.
        mu: The chemical potential.
    """

    levels: Floats
    beta: float
    mu: float

    @property
    def log_weight(self) -> Floats:
        r"""\(\ln W = \sum_n \ln(1 + e^{-\beta (E_n - \mu)})\), shape `(...)`."""
        logs = np.logaddexp(0, -self.beta * (self.levels - self.mu))
        return _total(logs)

    @property
    def occupations(self) -> Floats:
        r"""\(f_n = 1 / (1 + e^{\beta (E_n - \mu)})\), shape `(..., 2N)`."""
        from scipy.special import expit

        shares: Floats = expit(-self.beta * (self.levels - self.mu))
        return shares

    @property
    def energy(self) -> Floats:
        r"""\(\sum_n E_n f_n / N\), the energy of a site, in the unit of t."""
        return _total(self.levels * self.occupations) / self._sites

    @property
    def density(self) -> Floats:
        r"""\(\sum_n f_n / N\), electrons a site, between 0 and 2."""
        return _total(self.occupations) / self._sites

    @property
    def _sites(self) -> float:
        return float(self.levels.shape[-1] / 2)


def _total(of_levels: Floats) -> Floats:
    sums: Floats = of_levels.sum(axis=-1)
    return sums
