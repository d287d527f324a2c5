"""Cost of an independent sample: plain Metropolis and self-learning Monte Carlo."""

from __future__ import annotations

import time
import timeit
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
from keras_wm.slmc.statistics import MIN_ACCEPTANCE, Estimate, blocked_error, estimate
from keras_wm.utils.cores import usable_cores

CHAINS = 64
_FIRST_STEPS, _MAX_STEPS = 100, 20_000
_THERMALISATION = 50
_TIMINGS = 5
METROPOLIS, LINEAR, ATTENTION = "Metropolis", "linear", "attention"


@dataclass(frozen=True)
class Cost:
    """Cost of one sampler on one lattice.

    Attributes:
        size: L of a lattice of L x L sites.
        by: Sampler: `"Metropolis"`, `"linear"` or `"attention"`.
        step_ms: Milliseconds per step of one chain. A step is a sweep of plain
            Metropolis, or a proposal with its exact test.
        diagonalization_ms: Milliseconds per diagonalisation, in a batch of all chains.
        acceptance: Acceptance rate of trials or proposals.
        acceptance_error: Standard error of the acceptance rate.
        ms2: Squared staggered magnetisation.
        ms2_error: Standard error of `ms2`.
        time: Integrated autocorrelation time of `ms2`, in steps.
        time_error: Standard error of the autocorrelation time.
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
        """Milliseconds per independent sample: step times autocorrelation time."""
        return self.step_ms * self.time


def measure_costs(
    model: DoubleExchange, effective: keras.Model | None = None, sweeps: int = 10
) -> list[Cost]:
    """Measures the costs of all samplers on one lattice, one after another.

    First a linear model of all shells is learned. Each sampler continues from
    thermalised chains and runs for at least fifty autocorrelation times of the squared
    staggered magnetisation.

    Args:
        model: Exact model on a lattice of L x L sites.
        effective: Effective model with attention on the same lattice, which is measured
            too.
        sweeps: Number of sweeps per proposal.

    Raises:
        ValueError: If a sampler's chains hardly move.
    """
    size = model.lattice.extent[0]
    linear, spins = learn_linear(model, None, Schedule(CHAINS, 20, sweeps), 1)
    proposals: dict[str, Proposal] = {LINEAR: HeatBath(linear, sweeps)}
    if effective is not None:
        proposals[ATTENTION] = NeuralMetropolis(effective, sweeps)
    costs: list[Cost] = []
    for name, proposal in proposals.items():
        chain = SelfLearning(model, proposal, CHAINS, (2, len(costs)), spins)
        run(chain, 0, _THERMALISATION)
        costs.append(_cost(chain, size, name))
        spins = chain.spins
    # Fewer chains on large lattices, so that plain Metropolis takes about as long as
    # the others, but enough to occupy all cores.
    few = min(CHAINS, max(2, usable_cores(), 32 * 6**4 // size**4))
    plain = Metropolis(model, few, 3, spins[:few])
    run(plain, 0, _THERMALISATION)
    return [_cost(plain, size, METROPOLIS), *costs]


def _cost(chain: Sampler, size: int, name: str) -> Cost:
    start = time.perf_counter()
    series, ms2 = _long_run(chain)
    seconds = time.perf_counter() - start
    acceptance = series["acceptance"]
    return Cost(
        size,
        name,
        1e3 * seconds / acceptance.size,
        1e3 * _diagonalization_seconds(chain),
        float(acceptance.mean()),
        blocked_error(acceptance, 4),
        ms2.mean,
        ms2.error,
        ms2.time,
        ms2.time_error,
    )


def _long_run(chain: Sampler) -> tuple[Series, Estimate]:
    """Runs chains for at least fifty autocorrelation times of `ms2`."""
    series = run(chain, _FIRST_STEPS)
    while True:
        try:
            return series, estimate(series["ms2"])
        except ValueError as error:
            accepted = float(series["acceptance"].mean())
            if accepted < MIN_ACCEPTANCE or len(series["ms2"]) > _MAX_STEPS:
                raise ValueError(
                    f"{error} With an acceptance rate of {accepted:.2g}, this would "
                    "take too long. Use an effective model that was trained at this "
                    "temperature and on this lattice."
                ) from error
            more = run(chain, ceil(len(series["ms2"]) / 2))
            series = {
                name: np.concatenate([values, more[name]])
                for name, values in series.items()
            }


def _diagonalization_seconds(chain: Sampler) -> float:
    """Measures the seconds per configuration, the median of several timings."""
    times = timeit.repeat(
        lambda: chain.model.log_weight(chain.spins), repeat=_TIMINGS, number=1
    )
    return median(times) / chain.chains
