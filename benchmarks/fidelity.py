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

from keras_wm.research.demo import DemoSettings, run_demo

ROWS = (
    "test error marked, %",
    "test error unmarked, %",
    "kernel std, ratio",
    "mean-filter std, ratio",
    "bit error rate",
    "log10 p of the bits",
    "log10 p of the scores",
    "log10 p unmarked",
)


def main() -> None:
    """Runs the seeds and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("keras_wm_demo/fidelity"))
    arguments = parser.parse_args()
    seeds = []
    for seed in track(range(arguments.seeds), description="seeds"):
        folder = arguments.out / f"seed-{seed}"
        quiet = Console(file=io.StringIO())
        networks = run_demo(DemoSettings(seed=seed), folder, quiet)
        marked, unmarked = networks["marked"], networks["unmarked"]
        figures = (
            100 * marked.test_error,
            100 * unmarked.test_error,
            marked.kernel_std / unmarked.kernel_std,
            marked.mean_filter_std / unmarked.mean_filter_std,
            marked.verification.ber,
            marked.verification.log10_p_hard,
            marked.verification.log10_p_soft or 0.0,
            unmarked.verification.log10_p,
        )
        seeds.append(figures)
    columns = [f"seed {seed}" for seed in range(arguments.seeds)]
    table = Table("", *columns, "mean", title="Marked against unmarked")
    for name, values in zip(ROWS, np.transpose(seeds), strict=True):
        table.add_row(name, *(f"{value:.3f}" for value in (*values, values.mean())))
    Console().print(table)


if __name__ == "__main__":
    main()
