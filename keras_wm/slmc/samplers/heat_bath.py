"""Proposals from the linear effective model, by heat bath."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.slmc.samplers.proposal import Proposal
from keras_wm.slmc.samplers.site_order import SiteOrder, visits
from keras_wm.slmc.spins import unit
from keras_wm.utils.arrays import Floats

# Below it a field makes no difference that double precision shows.
_NO_FIELD = 1e-9


class HeatBath(Proposal):
    r"""Sweeps in which each spin is drawn anew in the field of all others.

    In the field \(h_i = \sum_j K_{ij} S_j\) a spin has the density
    \(e^{h_i \cdot S_i}\), whose component along the field is
    \(1 + \ln(u + (1 - u) e^{-2h}) / h\) of an even deviate u.

    Args:
        model: The linear effective model.
        sweeps: How many sweeps make a proposal.
        order: `"random"`, `"coin"`, or `"sequential"`, which is not reversible.
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
        chains, sites, _ = spins.shape
        every = np.arange(chains)
        for site in visits(rng, self.order, sites, self.sweeps, chains):
            fields = np.einsum("cj,cja->ca", self._matrix[site], spins)
            spins[every, site] = drawn_in_field(rng, fields)
        return spins, self.log_weight(spins)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "couplings": self.model.couplings.tolist(),
            "offset": self.model.offset,
        }


def drawn_in_field(rng: np.random.Generator, fields: Floats) -> Floats:
    r"""Unit vectors of the density \(e^{h \cdot S}\).

    Args:
        rng: The source of randomness.
        fields: h, shape `(..., 3)`.

    Returns:
        Shape `(..., 3)`.
    """
    strength = np.linalg.norm(fields, axis=-1, keepdims=True)
    evenly = rng.random(strength.shape)
    direction = unit(np.where(strength > _NO_FIELD, fields, [0.0, 0.0, 1.0]))
    h = np.maximum(strength, _NO_FIELD)
    along = 1 + np.log(evenly + (1 - evenly) * np.exp(-2 * h)) / h
    along = np.clip(along, -1, 1)
    # Any vector, less its part along the field, points across it evenly.
    across = rng.normal(size=fields.shape)
    across -= (across * direction).sum(axis=-1, keepdims=True) * direction
    return unit(along * direction + np.sqrt(1 - along**2) * unit(across))
