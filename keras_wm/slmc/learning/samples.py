"""Training data of effective models: configurations with their exact weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.samplers.chain import read_description, read_series
from keras_wm.utils.arrays import Floats


@dataclass(frozen=True, eq=False)
class Samples:
    """Configurations and their exact weights.

    Attributes:
        spins: Shape `(samples, N, 3)`.
        log_weights: Exact ln W, shape `(samples,)`.
        chains: Number of the chain that each sample comes from, shape `(samples,)`.
            Samples of one chain are correlated, or equal after a rejection.
    """

    spins: Floats
    log_weights: Floats
    chains: NDArray[np.int64]

    @classmethod
    def from_series(cls, series: Mapping[str, Floats]) -> Samples:
        """Makes samples of a run.

        Args:
            series: `"spins"`, shape `(steps, chains, N, 3)`, and `"log_weight"`, shape
                `(steps, chains)`.
        """
        spins, log_weights = series["spins"], series["log_weight"]
        steps, chains = log_weights.shape
        return cls(
            spins.reshape(-1, *spins.shape[-2:]),
            log_weights.ravel(),
            np.tile(np.arange(chains), steps),
        )

    def __len__(self) -> int:
        return len(self.log_weights)

    def __add__(self, other: Samples) -> Samples:
        return Samples(
            np.concatenate([self.spins, other.spins]),
            np.concatenate([self.log_weights, other.log_weights]),
            np.concatenate([self.chains, other.chains]),
        )

    def split_chains(self, share: float, seed: int) -> tuple[Samples, Samples]:
        """Splits the samples into those of randomly chosen chains and the rest.

        Args:
            share: Share of the chains in the first part.
            seed: Random seed.

        Raises:
            ValueError: If a part would contain no chain.
        """
        chains = np.random.default_rng(seed).permutation(np.unique(self.chains))
        count = round(share * len(chains))
        if not 0 < count < len(chains):
            raise ValueError(
                f"Holding out a share of {share:g} of the chains needs more chains. "
                f"Received: samples of {len(chains)} chains"
            )
        chosen = np.isin(self.chains, chains[:count])
        return self._select(chosen), self._select(~chosen)

    def _select(self, mask: NDArray[np.bool_]) -> Samples:
        return Samples(self.spins[mask], self.log_weights[mask], self.chains[mask])


def read_samples(path: str | os.PathLike[str], model: DoubleExchange) -> Samples:
    """Reads the configurations that `keras-wm slmc sample --spins` stored.

    Args:
        path: Checkpoint of the run.
        model: Exact model that the run has to have sampled.

    Raises:
        ValueError: If the file contains no spins, or belongs to another model.
    """
    series = read_series(path)
    name = os.fspath(path)
    if not {"spins", "log_weight"} <= series.keys():
        raise ValueError(
            f"{name!r} contains no spins. Sample with --spins to store them."
        )
    description, expected = read_description(path), model.to_dict()
    received = {parameter: description[parameter] for parameter in expected}
    if received != expected:
        raise ValueError(
            f"{name!r} contains samples of another model. Expected: {expected}. "
            f"Received: {received}"
        )
    return Samples.from_series(series)
