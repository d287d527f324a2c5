"""Proposals by heat bath with the linear effective model."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.slmc.samplers.proposal import Proposal, SiteOrder, site_sequence
from keras_wm.slmc.spins import unit
from keras_wm.utils.arrays import Floats

# A smaller field does not change the distribution in double precision.
_MIN_FIELD = 1e-9


class HeatBath(Proposal):
    r"""Heat-bath sweeps: each spin is drawn from its distribution given all others.

    In the field \(h_i = \sum_j K_{ij} S_j\) a spin has the density
    \(p(S_i) \propto e^{h_i \cdot S_i}\); see `sample_in_field`.

    Args:
        model: Linear effective model.
        sweeps: Number of sweeps per proposal.
        order: Order of the sites: see `site_sequence`.
    """

    def __init__(
        self, model: LinearModel, sweeps: int = 10, order: SiteOrder = "random"
    ) -> None:
        super().__init__(sweeps, order)
        self.model = model
        self._matrix = model.matrix

    def log_weight(self, spins: Floats) -> Floats:
        return self.model.log_weight(spins)

    def propose(
        self, rng: np.random.Generator, spins: Floats, log_weight: Floats
    ) -> tuple[Floats, Floats]:
        spins = spins.copy()
        chains, count, _ = spins.shape
        rows = np.arange(chains)
        for sites in site_sequence(rng, self.order, count, self.sweeps, chains):
            fields = np.einsum("cj,cja->ca", self._matrix[sites], spins)
            spins[rows, sites] = sample_in_field(rng, fields)
        return spins, self.log_weight(spins)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "couplings": self.model.couplings.tolist(),
            "offset": self.model.offset,
        }


def sample_in_field(rng: np.random.Generator, fields: Floats) -> Floats:
    r"""Draws unit vectors with density \(p(S) \propto e^{h \cdot S}\).

    The component of S along h is \(1 + \ln(u + (1 - u) e^{-2|h|}) / |h|\) with u
    uniform on [0, 1), and the direction across h is uniform.

    Args:
        rng: Random number generator.
        fields: Fields h, shape `(..., 3)`.

    Returns:
        Shape `(..., 3)`.
    """
    strength = np.linalg.norm(fields, axis=-1, keepdims=True)
    uniform = rng.random(strength.shape)
    direction = unit(np.where(strength > _MIN_FIELD, fields, [0.0, 0.0, 1.0]))
    h = np.maximum(strength, _MIN_FIELD)
    parallel = 1 + np.log(uniform + (1 - uniform) * np.exp(-2 * h)) / h
    parallel = np.clip(parallel, -1, 1)
    # A normal vector without its component along the field has a uniform direction
    # across the field.
    across = rng.normal(size=fields.shape)
    across -= (across * direction).sum(axis=-1, keepdims=True) * direction
    return unit(parallel * direction + np.sqrt(1 - parallel**2) * unit(across))
