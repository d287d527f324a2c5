"""Measures how often the verdict is wrong if its arguments are chosen afterwards.

    python benchmarks/false_alarms_of_choices.py [--trials 1000] [--aligned 120]
        [--processes 2]

In each trial a new key is looked for in networks that know nothing of it. Somebody who
sees the results of all arguments takes the smallest p-value that a report states. The
table shows for each path

- the Kolmogorov-Smirnov test of a test that was fixed beforehand, whose p-values are
  uniform;
- the share of the reported p-values that are at most 0.1, 0.01 and 0.001;
- the factor c for which P(p <= alpha) <= c alpha must hold. It is 1 for choices that
  the report counts. More than 1 is what can be gained by trying different calls, such
  as several numbers of slots, and reporting the best one only;
- the p-value of the hypothesis that these hold.

`benchmarks/false_alarms.py` tests kernels that were trained in many ways, and
`benchmarks/aligned_false_alarms.py` the alignment on all kinds of suspects.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from keras_wm.research.alignment_trials.networks import TESTED, chain
from keras_wm.research.alignment_trials.trials import make_trial
from keras_wm.research.null_trials.choices import (
    FACTORS,
    Figured,
    aligned_trial,
    claimed_trial,
    files_trial,
    hard_trial,
    network_trial,
    recipients_trial,
)
from keras_wm.research.null_trials.hosts import (
    cheap_key,
    quantized_file,
    safetensors_file,
)
from keras_wm.research.null_trials.outcomes import LEVELS, NullPath, collect, failing

# Probability that an exact program fails.
FAMILY_WISE = 0.001
_WIDTH = 24


def main() -> None:
    """Makes all trials, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--aligned", type=int, default=120)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "all layers of a file, 8 bits": quantized_file(Path(folder), 0),
            "all layers of a file, two orders": safetensors_file(Path(folder), 0),
        }
        kinds: list[tuple[Callable[[int], Figured], int]] = [
            (network_trial, options.trials),
            (hard_trial, options.trials),
            (claimed_trial, options.trials),
            (partial(files_trial, files), options.trials // 2),
            (recipients_trial, options.trials // 4),
            (aligned, options.aligned),
        ]
        # JAX, TensorFlow and PyTorch have threads, which a fork does not copy.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.processes, context) as pool:
            trials = [
                trial
                for kind, count in kinds
                for trial in _shown(pool.map(kind, range(count), chunksize=20), count)
            ]
    paths = collect(trials, FACTORS)
    console.print(null_table(paths))
    names = ", ".join(path.name for path in failing(paths, FAMILY_WISE))
    console.print(
        f"Not exact, at the level {FAMILY_WISE:g} for all {len(paths)} paths together "
        f"(Holm): {names or 'none'}"
    )


def aligned(number: int) -> Figured:
    """Tests the suspects of a key that has marked its own reference."""
    architecture = chain(_WIDTH, {TESTED: 0})
    return aligned_trial(make_trial(architecture, cheap_key(number), number))


def _shown(trials: Iterator[Figured], count: int) -> Iterator[Figured]:
    yield from track(trials, "trials", total=count, console=Console(stderr=True))


def null_table(paths: list[NullPath]) -> Table:
    """Returns the table of all paths."""
    shares = [f"p <= {level:g}" for level in LEVELS]
    table = Table("path", "trials", "KS", *shares, "factor", "p")
    for path in paths:
        uniformity = path.uniformity()
        table.add_row(
            path.name,
            str(path.count),
            "" if uniformity is None else f"{uniformity:.2g}",
            *(f"{100 * path.share_below(level):.2f} %" for level in LEVELS),
            f"{path.factor:.2g}",
            f"{path.p_value():.2g}",
        )
    return table


if __name__ == "__main__":
    main()
