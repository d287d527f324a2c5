"""Compares marked with unmarked networks of the demo, over several seeds.

    python benchmarks/fidelity.py [--seeds 3] [--out DIR]

Prints for each seed, and on average, the test errors of both networks, the ratios
marked / unmarked of the standard deviations of the kernel and of the mean filter, and
the bit error rate and p-values in the published files.
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
    "test error, marked, %",
    "test error, unmarked, %",
    "std of kernel, ratio",
    "std of mean filter, ratio",
    "bit error rate, marked",
    "log10 hard p, marked",
    "log10 soft p, marked",
    "log10 p, unmarked",
)


def main() -> None:
    """Runs the demo for each seed and prints a table."""
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
        measured = (
            100 * marked.test_error,
            100 * unmarked.test_error,
            marked.kernel_std / unmarked.kernel_std,
            marked.mean_filter_std / unmarked.mean_filter_std,
            marked.verification.ber,
            marked.verification.log10_p_hard,
            marked.verification.log10_p_soft or 0.0,
            unmarked.verification.log10_p,
        )
        seeds.append(measured)
    columns = [f"seed {seed}" for seed in range(arguments.seeds)]
    table = Table("", *columns, "mean", title="Marked and unmarked networks")
    for name, values in zip(ROWS, np.transpose(seeds), strict=True):
        table.add_row(name, *(f"{value:.3f}" for value in (*values, values.mean())))
    Console().print(table)


if __name__ == "__main__":
    main()
