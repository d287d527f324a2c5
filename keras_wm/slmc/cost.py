"""What an independent sample costs: plain Metropolis and self-learning Monte Carlo."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil
from statistics import median

import keras
import numpy as np

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.learning.online import Schedule, learn_linear
from keras_wm.slmc.samplers.chain import Series, run
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.metropolis import Metropolis
from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
from keras_wm.slmc.samplers.proposal import Proposal
from keras_wm.slmc.samplers.sampler import Sampler
from keras_wm.slmc.samplers.self_learning import SelfLearning
from keras_wm.slmc.statistics import LEAST_ACCEPTANCE, Estimate, blocked_error, estimate
from keras_wm.utils.cores import usable_cores

CHAINS = 64
_FIRST_STEPS, _MOST_STEPS = 100, 20_000
_TO_REST = 50
METROPOLIS, LINEAR, ATTENTION = "Metropolis", "linear", "attention"


@dataclass(frozen=True)
class Cost:
    """What one sampler costs on one lattice.

    Attributes:
        size: L, of L x L sites.
        by: What proposes.
        step_ms: Of one chain, a sweep or a proposal with its test.
        diagonalization_ms: Of one configuration, in a batch of as many chains.
        acceptance: Of trials or proposals.
        acceptance_error: Its standard error.
        ms2: The squared staggered magnetisation.
        ms2_error: Its standard error.
        time: The integrated autocorrelation time, in steps.
        time_error: Its standard error.
    """

    size: int
    by: str
    step_ms: float
    diagonalization_ms: float
    acceptance: float
    acceptance_error: float
    ms2: float
    ms2_error: float
    time: float
    time_error: float

    @property
    def sample_ms(self) -> float:
        """What an independent sample takes."""
        return self.step_ms * self.time


def costs(
    model: DoubleExchange, effective: keras.Model | None = None, sweeps: int = 10
) -> list[Cost]:
    """All samplers on one lattice, one after the other.

    A linear model of all shells is learned, and chains that it has brought to rest go
    on by each sampler, for fifty autocorrelation times of the squared staggered
    magnetisation or longer.

    Args:
        model: What gives a configuration its weight, on a square.
        effective: An effective model with attention that proposes too, on its lattice.
        sweeps: How many sweeps make a proposal.
    """
    size = model.lattice.extent[0]
    linear, spins = learn_linear(model, None, Schedule(CHAINS, 20, sweeps), 1)
    proposals: dict[str, Proposal] = {LINEAR: HeatBath(linear, sweeps)}
    if effective is not None:
        proposals[ATTENTION] = NeuralMetropolis(effective, sweeps)
    found: list[Cost] = []
    at_rest = spins
    for name, proposal in proposals.items():
        chain = SelfLearning(model, proposal, CHAINS, (2, len(found)), at_rest)
        run(chain, 0, _TO_REST)
        found.append(_cost(chain, size, name))
        at_rest = chain.spins
    # As many chains as it takes about as long as the others, and no core idles.
    few = min(CHAINS, max(2, usable_cores(), 32 * 6**4 // size**4))
    plain = Metropolis(model, few, 3, at_rest[:few])
    run(plain, 0, _TO_REST)
    return [_cost(plain, size, METROPOLIS), *found]


def _cost(chain: Sampler, size: int, name: str) -> Cost:
    begin = time.perf_counter()
    series, found = _long_enough(chain)
    seconds = time.perf_counter() - begin
    steps = len(series["ms2"])
    acceptance = series["acceptance"]
    return Cost(
        size,
        name,
        1e3 * seconds / steps / chain.chains,
        1e3 * _diagonalization(chain),
        float(acceptance.mean()),
        blocked_error(acceptance, 4),
        found.mean,
        found.error,
        found.time,
        found.time_error,
    )


def _long_enough(chain: Sampler) -> tuple[Series, Estimate]:
    """A run of fifty autocorrelation times, however long these turn out to be.

    Raises:
        ValueError: If they are longer than anybody would wait for.
    """
    series = run(chain, _FIRST_STEPS)
    while True:
        try:
            return series, estimate(series["ms2"])
        except ValueError as error:
            accepted = float(series["acceptance"].mean())
            if accepted < LEAST_ACCEPTANCE or len(series["ms2"]) > _MOST_STEPS:
                raise ValueError(
                    f"{error} An acceptance of {accepted:.2g} leads nowhere: take "
                    "an effective model of this temperature and lattice."
                ) from error
            more = run(chain, ceil(len(series["ms2"]) / 2))
            series = {
                name: np.concatenate([values, more[name]])
                for name, values in series.items()
            }


def _diagonalization(chain: Sampler) -> float:
    """Seconds for one configuration, the median of several."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        chain.model.log_weight(chain.spins)
        times.append(time.perf_counter() - begin)
    return median(times) / chain.chains
