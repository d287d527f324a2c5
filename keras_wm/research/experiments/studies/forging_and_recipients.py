"""Who may claim a model: forged keys, and the recipients of its copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import log10
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.attacks.forging import searched_keys, solved_key, years_of_search
from keras_wm.research.experiments.experiment import Experiment, Run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Figures, Row
from keras_wm.research.experiments.schemes import UNMARKED, Mark, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.studies.fine_tuning_and_distilling import SECOND
from keras_wm.research.experiments.tables import (
    ResultTable,
    having,
    mean_of,
    percent,
    table,
    worst_of,
)
from keras_wm.research.experiments.training import Training, from_scratch
from keras_wm.scheme.detection import corrected, detect
from keras_wm.utils.arrays import Floats
from keras_wm.verification.result import MARKED, PROVEN

SEARCHED_BITS = (64, 256)
TRIALS = 2000
_COUNTED = (1, 2, 5)
COPIES_A_RUN = 10
COPY_EPOCHS = 4
COPY_RATE = 0.05
MIXED = (2, 3)
NAMED = 1e-6


def _forging_runs(settings: Settings) -> Iterator[Run]:
    host = from_scratch(settings, UNMARKED, 0)
    layer = group_layer(settings.group)
    bits = settings.bits_of("default")
    solved = partial(_solved, host=host, layer=layer, bits=bits)
    yield Run({"key": "chosen projection", "bits": bits}, solved, host)
    for bits in SEARCHED_BITS:
        labels = {"key": "searched secrets", "bits": bits}
        searched = partial(_searched, host=host, layer=layer, bits=bits)
        yield Run(labels, searched, host)


def _solved(store: NetworkStore, host: Training, layer: str, bits: int) -> Figures:
    kernel = _kernel(store.network(host)[0], layer)
    begin = time.perf_counter()
    found = detect(kernel, solved_key(kernel, bits, seed=0))
    return {
        "trials": 1,
        "seconds_a_trial": time.perf_counter() - begin,
        "ber": found.ber,
        "log10_p": found.log10_p,
    }


def _searched(store: NetworkStore, host: Training, layer: str, bits: int) -> Figures:
    kernel = _kernel(store.network(host)[0], layer)
    begin = time.perf_counter()
    found = [p for _, p in searched_keys(kernel, bits, TRIALS, seed=0)]
    seconds = time.perf_counter() - begin
    best = np.minimum.accumulate(found)
    return {
        "trials": TRIALS,
        "seconds_a_trial": seconds / TRIALS,
        "log10_p": float(best[-1]),
        "curve": [[count, float(best[count - 1])] for count in _counts(TRIALS)],
    }


def _counts(most: int) -> list[int]:
    """1, 2, 5, 10, 20, 50 and so on."""
    decades = range(len(str(most)))
    counts = [step * 10**decade for decade in decades for step in _COUNTED]
    return [*(count for count in counts if count < most), most]


def _forging_tables(rows: Sequence[Row]) -> list[ResultTable]:
    groups = [([row["key"], str(row["bits"])], [row]) for row in rows]
    cells = {
        "trials": lambda found: f"{found[0]['trials']:,}",
        "seconds each": lambda found: mean_of(found, "seconds_a_trial", ".2g"),
        "best log p": lambda found: mean_of(found, "log10_p", ".1f"),
        f"years to {MARKED:g}": lambda found: _years(found[0], MARKED),
        "years to 2^-64": lambda found: _years(found[0], PROVEN),
    }
    notes = [
        "A projection that is chosen after the weights reads any message, and every "
        "report on such a key says that it proves nothing by itself. Of secrets that "
        "are drawn, the best of n has a p-value of about 1 / n; years are those of one "
        "core, in which 1 / p trials are made.",
        "Who has a thousand cores gets below 1e-9 in the thousandth part: only a "
        "commitment that is older than the model keeps a search out, or a p-value "
        "below 2^-64.",
    ]
    return [
        table(
            "Forging a key for an unmarked network", groups, ["key", "T"], cells, notes
        )
    ]


def _years(row: Row, p: float) -> str:
    if "curve" not in row:
        return "0"
    return f"{years_of_search(p, row['seconds_a_trial']):.2g}"


def _forging_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    curves = {
        f"T = {row['bits']}": [(count, 10**p) for count, p in row["curve"]]
        for row in rows
        if "curve" in row
    }
    if not curves:
        return {}
    most = max(count for curve in curves.values() for count, _ in curve)
    curves["1 / n"] = [(count, 1 / count) for count in _counts(most)]
    return {
        "search": plots.plot_lines(
            curves, "secrets tried n", "smallest p-value", log_x=10, log_y=10
        )
    }


def recipients_of(settings: Settings) -> list[str]:
    """All who may have had a copy: 1,000 with five seeds."""
    return [f"customer-{number}" for number in range(200 * settings.seeds)]


def _recipient_runs(settings: Settings) -> Iterator[Run]:
    """As many runs as make a fifth of the recipients a copy: 200 with five seeds."""
    host = from_scratch(settings, "default", 0)
    for first in range(0, len(recipients_of(settings)) // 5, COPIES_A_RUN):
        perform = partial(_traced, settings=settings, host=host, first=first)
        yield Run({"first": first}, perform, host)


def _traced(
    store: NetworkStore, settings: Settings, host: Training, first: int
) -> Figures:
    """Marks copies, mixes some of them, and looks for everybody's mark in all."""
    assert host.mark is not None  # noqa: S101 (the host has the owner's)
    names = recipients_of(settings)
    weights: list[list[Any]] = []
    leaks = []
    for name in names[first : first + COPIES_A_RUN]:
        copy = Training(
            SECOND + first,
            COPY_EPOCHS,
            replace(host.mark, recipient=name),
            start=host,
            rate=COPY_RATE,
        )
        model, _ = store.network(copy)
        weights.append(model.get_weights())
        leaks.append(_Leak([name]))
    for size in MIXED:
        for start in range(0, COPIES_A_RUN - size + 1, size):
            leaks.append(_Leak(names[first + start : first + start + size]))
    pictures = store.pictures(host.task)
    for leak in leaks:
        mixed = [weights[names.index(name) - first] for name in leak.recipients]
        model.set_weights([np.mean(each, axis=0) for each in zip(*mixed, strict=True)])
        leak.kernel = _kernel(model, host.mark.layers[0])
        leak.test_error = pictures.test_error(model)
    _trace(leaks, names, host.mark)
    return {"leaks": [leak.to_dict(len(names)) for leak in leaks]}


def _trace(leaks: Sequence[_Leak], names: Sequence[str], mark: Mark) -> None:
    """Looks for every recipient's mark in every leaked kernel."""
    for name in names:
        key = replace(mark, recipient=name).key()
        for leak in leaks:
            leak.log10_p[name] = detect(leak.kernel, key).log10_p


@dataclass
class _Leak:
    """A network that recipients gave away: a copy, or the mean of several.

    Attributes:
        recipients: Whose copies are in it.
        kernel: Its marked kernel.
        test_error: What it gets wrong.
        log10_p: log10 of the p-value of each recipient's mark, of one test.
    """

    recipients: list[str]
    kernel: Floats = field(default_factory=lambda: np.empty(0))
    test_error: float = 1.0
    log10_p: dict[str, float] = field(default_factory=dict)

    def to_dict(self, tests: int) -> Figures:
        """Who is named, and how far the others are from it."""
        p = {name: corrected(one, tests) for name, one in self.log10_p.items()}
        guilty = [p[name] for name in self.recipients]
        innocent = [one for name, one in p.items() if name not in self.recipients]
        return {
            "mixed": len(self.recipients),
            "test_error": self.test_error,
            "named": sum(one < log10(NAMED) for one in guilty),
            "innocent_named": sum(one < log10(NAMED) for one in innocent),
            "log10_p": max(guilty),
            "innocent_log10_p": min(innocent),
        }


def _recipient_tables(rows: Sequence[Row]) -> list[ResultTable]:
    leaks = [leak for row in rows for leak in row["leaks"]]
    groups = [([str(mixed)], having(leaks, mixed=mixed)) for mixed in (1, *MIXED)]
    cells = {
        "leaks": lambda found: str(len(found)),
        "error": lambda found: percent(found, "test_error"),
        "all named": lambda found: _share(found, lambda leak: leak["mixed"]),
        "one named": lambda found: _share(found, lambda leak: 1),
        "innocent named": lambda found: str(
            sum(one["innocent_named"] for one in found)
        ),
        "log p, weakest": lambda found: worst_of(found, "log10_p", ".0f"),
        "log p, innocent": lambda found: format(
            min(one["innocent_log10_p"] for one in found), "z.1f"
        ),
    }
    notes = [
        f"Named: p below {NAMED:g}, multiplied by the number of recipients. The copies "
        "are the owner's marked network, fine-tuned for a few epochs with one "
        "recipient's key in the same layer. Mixed copies are the mean of their weights."
    ]
    title = "Recipients: whose copy is it?"
    return [table(title, groups, ["copies mixed"], cells, notes)]


def _share(leaks: Sequence[Row], needed: Callable[[Row], int]) -> str:
    named = sum(leak["named"] >= needed(leak) for leak in leaks)
    return f"{named} of {len(leaks)}"


def _kernel(model: Any, layer: str) -> Floats:
    return np.asarray(model.get_layer(layer).kernel, np.float64)


FORGING = Experiment(
    "forging",
    "Can anybody make a key for a network that is there?",
    _forging_runs,
    _forging_tables,
    _forging_figures,
)
RECIPIENTS = Experiment(
    "recipients",
    "Does a copy's mark name its recipient, and nobody else?",
    _recipient_runs,
    _recipient_tables,
)
