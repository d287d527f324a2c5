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

The first table shows for each path the p of a test of its p-values, and the share of
them that is below 0.01. It is a Kolmogorov-Smirnov test for uniform p-values. Those of
reordered filters are corrected, and are tested for too many small ones. The controls
are alignments that are not exact, and must fail: with siblings, norms copied from the
reference; with unrelated networks, an alignment that only holds out the tested kernel.
The second table shows, for marked networks whose channels were rearranged, the median
and the largest log10 p.
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
    REORDERED,
    Path,
    family_wise,
    null_paths,
    power_paths,
)
from keras_wm.research.alignment_trials.training import trained_trials
from keras_wm.research.alignment_trials.trials import make_trial

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
# The attempts of `verify`, and their columns.
ATTEMPTS = {
    "aligned": "reference",
    "aligned with the checkpoint": "checkpoint",
    REORDERED: "reordered",
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
    console, progress = Console(width=120), Console(stderr=True)
    keys = _keys(options.keys, BITS)
    nulls, powers, failing = {}, {}, {}
    for number, (name, architecture) in enumerate(ARCHITECTURES.items()):
        own_keys = keys[number :: len(ARCHITECTURES)]
        if not own_keys:
            continue
        shown = track(enumerate(own_keys), name, len(own_keys), console=progress)
        trials = [
            make_trial(architecture, key, options.seed + seed, options.strength)
            for seed, key in shown
        ]
        nulls[name] = null_paths(trials)
        powers[name] = power_paths(trials[: round(COPIES * len(trials)) + 1])
        failing[name] = controls.control_paths(architecture, trials)
    for name, slots in TRAINED.items() if options.trained else ():
        trained = trained_trials(_keys(options.trained, 64), slots, options.seed)
        nulls[name], powers[name] = null_paths(trained), power_paths(trained)
    console.print(null_table(nulls, failing))
    paths = [
        path
        for of_name in nulls.values()
        for path in of_name
        if path.attempt in ATTEMPTS
    ]
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
    columns = ("networks", "suspect", "trials", *ATTEMPTS.values(), "control")
    table = Table(*columns)
    for name, paths in nulls.items():
        of_suspect: dict[str, dict[str, str]] = {}
        for path in [*paths, *failing.get(name, [])]:
            if path.attempt == "unaligned":
                continue
            cell = f"{path.p_value():.2g}, {100 * path.share_below(0.01):.1f} %"
            cells = of_suspect.setdefault(path.suspect, {"trials": str(path.count)})
            cells[ATTEMPTS.get(path.attempt, "control")] = cell
        for suspect, cells in of_suspect.items():
            row = [cells.get(column, "") for column in columns[2:]]
            table.add_row(name, suspect, *row)
    return table


def power_table(powers: Mapping[str, Sequence[Path]]) -> Table:
    """Returns the table of the marked networks."""
    columns = ("networks", "copy", "trials", "unaligned", *list(ATTEMPTS.values())[:2])
    table = Table(*columns)
    names = {"unaligned": "unaligned", **ATTEMPTS}
    for name, paths in powers.items():
        of_copy: dict[str, dict[str, str]] = {}
        for path in paths:
            p = np.array(path.log10_p)
            cells = of_copy.setdefault(path.suspect, {"trials": str(path.count)})
            cells[names[path.attempt]] = f"{np.median(p):.1f}, {p.max():.1f}"
        for copy, cells in of_copy.items():
            row = [cells.get(column, "") for column in columns[2:]]
            table.add_row(name, copy, *row)
    return table


if __name__ == "__main__":
    main()
