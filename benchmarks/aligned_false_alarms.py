"""Measures how often the aligned search finds a mark where there is none, and where.

    python benchmarks/aligned_false_alarms.py [--keys 240] [--trained 8] [--seed 0]
        [--strength 1]

Each key marks its own reference, and `verify` tests suspects without the mark with
this reference and with the checkpoint from before the mark. The p-values of each path
must be uniform in [0, 1]. The networks are

- chains of dense layers with one marked kernel, and with a mark in every kernel, each
  in a slot of its own;
- residual networks with two similar layers that were marked in the same slot;
- chains that Keras trained on scikit-learn's digits.

The first table has one line for each path. `p` is that of a Kolmogorov-Smirnov test for
uniform p-values; reordered filters have corrected p-values, which are tested for too
many small ones. The last lines are controls that must fail: they show that the test
would see what alignment avoids. The second table shows the p-values of marked networks
whose channels were rearranged.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from keras_wm import WatermarkKey
from keras_wm.research.alignment_trials import controls
from keras_wm.research.alignment_trials.networks import (
    TESTED,
    Architecture,
    chain,
    tied_layers,
)
from keras_wm.research.alignment_trials.outcomes import (
    Path,
    family_wise,
    null_paths,
    power_paths,
)
from keras_wm.research.alignment_trials.training import trained_trials
from keras_wm.research.alignment_trials.trials import make_trial
from keras_wm.verification.result import MARKED

WIDTH, BITS = 24, 32
ARCHITECTURES: Mapping[str, Architecture] = {
    "one marked kernel": chain(WIDTH, {TESTED: 0}),
    "every kernel marked": chain(WIDTH, {TESTED: 0, "first": 1, "third": 2, "last": 3}),
    "two kernels in one slot": tied_layers(WIDTH),
}
TRAINED = {
    "trained, one marked kernel": {TESTED: 0},
    "trained, three marked kernels": {TESTED: 0, "first": 1, "third": 2},
}
# Copies of the marked networks are tested in this share of the trials.
COPIES = 0.1


def main() -> None:
    """Makes the networks, tests them, and prints the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keys", type=int, default=240)
    parser.add_argument("--trained", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strength", type=float, default=1.0)
    options = parser.parse_args()
    console = Console(width=120)
    keys = _keys(options.keys, BITS)
    nulls, powers, failing = {}, {}, {}
    for number, (name, architecture) in enumerate(ARCHITECTURES.items()):
        chosen = range(number, len(keys), len(ARCHITECTURES))
        trials = [
            make_trial(architecture, keys[i], options.seed + i, options.strength)
            for i in track(chosen, name, console=Console(stderr=True))
        ]
        nulls[name] = null_paths(trials)
        powers[name] = power_paths(trials[: round(COPIES * len(trials)) + 1])
        failing[name] = controls.control_paths(architecture, trials)
    for name, slots in TRAINED.items() if options.trained else ():
        trained = trained_trials(_keys(options.trained, 64), slots, options.seed)
        nulls[name], powers[name] = null_paths(trained), power_paths(trained)
    console.print(null_table(nulls, failing))
    paths = [path for of_name in nulls.values() for path in of_name]
    console.print(
        f"Smallest p of {len(paths)} paths, corrected for their number: "
        f"{family_wise(paths):.3g}. Below 0.001, alignment is not exact.\n"
    )
    console.print(power_table(powers))


def _keys(count: int, bits: int) -> list[WatermarkKey]:
    return [WatermarkKey.generate(f"key {number}", bits) for number in range(count)]


def null_table(
    nulls: Mapping[str, Sequence[Path]], failing: Mapping[str, Sequence[Path]]
) -> Table:
    """Returns the table of the suspects without a mark."""
    table = Table("networks", "suspect", "attempt", "trials", "p", "p-values < 0.01")
    for of_kind in (nulls, failing):
        for name, paths in of_kind.items():
            for path in paths:
                share = f"{100 * path.share_below(0.01):.2f} %"
                row = (str(path.count), f"{path.p_value():.3g}", share)
                table.add_row(name, path.suspect, path.attempt, *row)
        table.add_section()
    return table


def power_table(powers: Mapping[str, Sequence[Path]]) -> Table:
    """Returns the table of the marked networks."""
    found = f"p-values < {MARKED:g}"
    columns = ("median log10 p", "largest", found)
    table = Table("networks", "copy", "attempt", "trials", *columns)
    for name, paths in powers.items():
        for path in paths:
            p = np.array(path.log10_p)
            share = f"{100 * path.share_below(MARKED):.0f} %"
            row = (str(path.count), f"{np.median(p):.1f}", f"{p.max():.1f}", share)
            table.add_row(name, path.suspect, path.attempt, *row)
    return table


if __name__ == "__main__":
    main()
