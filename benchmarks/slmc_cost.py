"""What an independent sample costs: plain Metropolis over self-learning Monte Carlo.

    python benchmarks/slmc_cost.py [--sizes 4 6] [--beta 20] [--model FILE]

With --model an effective model with attention, such as `keras-wm slmc train` makes,
proposes too. Sizes 4, 6, 8 and 10 take a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from keras_wm.slmc.cost import METROPOLIS, Cost, costs
from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.samplers.by_name import load_model


def main() -> None:
    """Measures and prints the costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 6])
    parser.add_argument("--beta", type=float, default=20.0)
    parser.add_argument("--model", help="an effective model with attention")
    arguments = parser.parse_args()
    console = Console()
    found: list[Cost] = []
    for size in arguments.sizes:
        model = DoubleExchange(square_lattice(size), arguments.beta)
        try:
            effective = load_model(arguments.model, model) if arguments.model else None
            found += costs(model, effective)
        except ValueError as error:
            # Of another lattice: its shells are missing, or its scores add up to more.
            console.print(f"{size} x {size}, without attention: {error}")
            found += costs(model)
        console.print(f"{size} x {size} done")
    console.print(_table(found))


def _table(found: list[Cost]) -> Table:
    heads = ["L", "by", "step", "/ eigvalsh", "accepted", "ms²", "time"]
    table = Table(*heads, "sample", "ratio", box=None, padding=(0, 1, 0, 0))
    plain = {one.size: one.sample_ms for one in found if one.by == METROPOLIS}
    for one in found:
        table.add_row(
            str(one.size),
            one.by,
            f"{one.step_ms:.3g}",
            f"{one.step_ms / one.diagonalization_ms:.1f}",
            f"{one.acceptance:.3f}",
            f"{one.ms2:.4f}({round(1e4 * one.ms2_error)})",
            f"{one.time:.1f} ± {one.time_error:.1f}",
            f"{one.sample_ms:.3g}",
            f"{plain[one.size] / one.sample_ms:.1f}",
        )
    table.caption = (
        "Step: milliseconds of one chain for a sweep or a proposal, and how many "
        "diagonalizations that is. ms²: of the staggered magnetisation. Time: its own, "
        "in steps. Sample: milliseconds for an independent one. Ratio: plain "
        "Metropolis over this."
    )
    return table


if __name__ == "__main__":
    main()
