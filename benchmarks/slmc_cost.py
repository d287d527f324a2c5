"""What an independent sample costs: plain Metropolis over self-learning Monte Carlo.

On each lattice a linear model of all shells is learned, and chains that it has brought
to rest go on by both, one after the other: the time of a step times the integrated
autocorrelation time of the squared staggered magnetisation, which both have to sample
for fifty times as long. Beside it, where a proposal's time goes, in diagonalizations.

    python benchmarks/slmc_cost.py [--sizes 4 6] [--beta 20] [--model FILE]

With --model an effective model with attention, such as `keras-wm slmc train` makes,
proposes too. Sizes 4, 6, 8 and 10 take a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_wm.hosts.spin_fermion.analysis import (
    Estimate,
    blocked_error,
    estimate,
)
from keras_wm.hosts.spin_fermion.chain import Series, run
from keras_wm.hosts.spin_fermion.commands import load_model
from keras_wm.hosts.spin_fermion.double_exchange import DoubleExchange
from keras_wm.hosts.spin_fermion.heat_bath import HeatBath
from keras_wm.hosts.spin_fermion.lattice import square_lattice
from keras_wm.hosts.spin_fermion.learning import Schedule, learn_linear
from keras_wm.hosts.spin_fermion.metropolis import Metropolis
from keras_wm.hosts.spin_fermion.neural_metropolis import NeuralMetropolis
from keras_wm.hosts.spin_fermion.proposal import Proposal
from keras_wm.hosts.spin_fermion.sampler import Sampler
from keras_wm.hosts.spin_fermion.self_learning import SelfLearning

PROPOSAL_SWEEPS = 10
CHAINS = 64
_FIRST_STEPS = 100


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

    @property
    def sample_ms(self) -> float:
        """What an independent sample takes."""
        return self.step_ms * self.time


def main() -> None:
    """Measures, prints and keeps the costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 6])
    parser.add_argument("--beta", type=float, default=20.0)
    parser.add_argument("--model", help="an effective model with attention")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: list[Cost] = []
    console = Console()
    for size in arguments.sizes:
        model = DoubleExchange(square_lattice(size), arguments.beta)
        for cost in costs(model, arguments.model):
            console.print(f"{size} x {size}, {cost.by}: {cost.sample_ms:.3g} ms")
            found.append(cost)
    console.print(_table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1))


def costs(model: DoubleExchange, effective: str | None) -> list[Cost]:
    """All samplers on one lattice, from the same chains at rest."""
    size = model.lattice.extent[0]
    linear, spins = learn_linear(model, None, Schedule(CHAINS, 20, PROPOSAL_SWEEPS), 1)
    proposals: dict[str, Proposal] = {"linear": HeatBath(linear, PROPOSAL_SWEEPS)}
    if effective is not None:
        proposals["attention"] = NeuralMetropolis(load_model(effective, model))
    found, at_rest = [], spins
    for name, proposal in proposals.items():
        chain = SelfLearning(model, proposal, CHAINS, 2, at_rest)
        run(chain, 0, 50)
        found.append(_cost(chain, size, name))
        at_rest = chain.spins
    # As many chains as it takes about as long as the others.
    few = min(CHAINS, max(2, 32 * 6**4 // size**4))
    plain = Metropolis(model, few, 3, at_rest[:few])
    run(plain, 0, 30)
    return [_cost(plain, size, "Metropolis"), *found]


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
    )


def _long_enough(chain: Sampler) -> tuple[Series, Estimate]:
    """A run of fifty autocorrelation times, however long these turn out to be."""
    series = run(chain, _FIRST_STEPS)
    while True:
        try:
            return series, estimate(series["ms2"])
        except ValueError:
            more = run(chain, ceil(len(series["ms2"]) / 2))
            series = {
                name: np.concatenate([values, more[name]])
                for name, values in series.items()
            }


def _diagonalization(chain: Sampler) -> float:
    """Seconds for one configuration, at the best of several."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        chain.model.log_weight(chain.spins)
        times.append(time.perf_counter() - begin)
    return min(times) / chain.chains


def _table(found: list[Cost]) -> Table:
    heads = ["L", "by", "step", "/ eigvalsh", "accepted", "staggered m²", "time"]
    table = Table(*heads, "sample", "ratio", box=None)
    plain = {one.size: one.sample_ms for one in found if one.by == "Metropolis"}
    for one in found:
        table.add_row(
            str(one.size),
            one.by,
            f"{one.step_ms:.3g}",
            f"{one.step_ms / one.diagonalization_ms:.1f}",
            f"{one.acceptance:.3f}",
            f"{one.ms2:.4f}({round(1e4 * one.ms2_error)})",
            f"{one.time:.1f}",
            f"{one.sample_ms:.3g}",
            f"{plain[one.size] / one.sample_ms:.1f}",
        )
    table.caption = (
        "Step: milliseconds of one chain for a sweep or a proposal, and how many "
        "diagonalizations that is. Time: in steps. Sample: milliseconds for an "
        "independent one. Ratio: plain Metropolis over this."
    )
    return table


if __name__ == "__main__":
    main()
