"""Measures the cost of an independent sample by plain Metropolis and self-learning.

    python benchmarks/slmc_cost.py [--sizes 4 6] [--beta 20] [--model FILE]

With `--model`, an effective model with attention, such as `keras-wm slmc train` makes,
is measured too. Sizes 4, 6, 8 and 10 take a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from keras_wm.slmc.cost import METROPOLIS, Cost, measure_costs
from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.models.effective_model import load_effective_model


def main() -> None:
    """Measures and prints the costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 6])
    parser.add_argument("--beta", type=float, default=20.0)
    parser.add_argument("--model", help="file of an effective model with attention")
    arguments = parser.parse_args()
    console = Console()
    costs: list[Cost] = []
    for size in arguments.sizes:
        model = DoubleExchange(square_lattice(size), arguments.beta)
        try:
            effective = (
                load_effective_model(arguments.model, model.lattice)
                if arguments.model
                else None
            )
            costs += measure_costs(model, effective)
        except ValueError as error:
            # A model of another lattice: this one lacks its shells, or its attention
            # scores have another scale here.
            console.print(f"{size} x {size}, without attention: {error}")
            costs += measure_costs(model)
        console.print(f"{size} x {size} done")
    console.print(_table(costs))


def _table(costs: list[Cost]) -> Table:
    titles = ["L", "sampler", "step", "/ eigvalsh", "accepted", "ms²", "time"]
    table = Table(*titles, "sample", "ratio", box=None, padding=(0, 1, 0, 0))
    plain = {cost.size: cost.sample_ms for cost in costs if cost.by == METROPOLIS}
    for cost in costs:
        table.add_row(
            str(cost.size),
            cost.by,
            f"{cost.step_ms:.3g}",
            f"{cost.step_ms / cost.diagonalization_ms:.1f}",
            f"{cost.acceptance:.3f}",
            f"{cost.ms2:.4f}({round(1e4 * cost.ms2_error)})",
            f"{cost.time:.1f} ± {cost.time_error:.1f}",
            f"{cost.sample_ms:.3g}",
            f"{plain[cost.size] / cost.sample_ms:.1f}",
        )
    table.caption = (
        "step: milliseconds per chain for one sweep of Metropolis or one proposal, and "
        "the number of diagonalisations that take as long. ms²: squared staggered "
        "magnetisation. time: its autocorrelation time in steps. sample: milliseconds "
        "per independent sample. ratio: cost of plain Metropolis divided by this cost."
    )
    return table


if __name__ == "__main__":
    main()
