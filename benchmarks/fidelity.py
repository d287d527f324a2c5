"""What a mark does to its host: the demo over several seeds, marked against unmarked.

    python benchmarks/fidelity.py [--seeds 3] [--out DIR]

Prints, for each seed and on average, the test error of the two networks, the ratios of
the standard deviations of kernel and mean filter, and what was found in the files.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from keras_wm.demo import DemoSettings, run_demo


def main() -> None:
    """Runs the seeds and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("keras_wm_demo/fidelity"))
    arguments = parser.parse_args()
    columns = (
        "seed",
        "error marked, %",
        "error unmarked, %",
        "kernel std ratio",
        "mean-filter std ratio",
        "BER",
        "log10 p hard",
        "log10 p soft",
        "log10 p unmarked",
    )
    table = Table(*columns, title="Marked against unmarked")
    figures = []
    for seed in track(range(arguments.seeds), description="seeds"):
        folder = arguments.out / f"seed-{seed}"
        quiet = Console(file=io.StringIO())
        networks = run_demo(DemoSettings(seed=seed), folder, quiet)
        marked, unmarked = networks["marked"], networks["unmarked"]
        row = (
            100 * marked.test_error,
            100 * unmarked.test_error,
            marked.kernel_std / unmarked.kernel_std,
            marked.mean_filter_std / unmarked.mean_filter_std,
            marked.verification.ber,
            marked.verification.log10_p_hard,
            marked.verification.log10_p_soft or 0.0,
            unmarked.verification.log10_p,
        )
        figures.append(row)
        table.add_row(str(seed), *(f"{figure:.3f}" for figure in row))
    table.add_row("mean", *(f"{figure:.3f}" for figure in np.mean(figures, axis=0)))
    Console().print(table)


if __name__ == "__main__":
    main()
