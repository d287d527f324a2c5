"""The experiment `recipients`: leaked copies, traced to their recipients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import log10

import numpy as np

from keras_wm.research.experiments.experiment import Experiment, Run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.studies.embedding import SECOND
from keras_wm.research.experiments.tables import (
    ResultTable,
    grouped,
    make_table,
    percent,
    worst_of,
)
from keras_wm.research.experiments.training import Training, from_scratch
from keras_wm.scheme.detection import corrected, detect

# Each run marks this many copies, and fine-tunes each for a few epochs.
COPIES_PER_RUN = 10
COPY_EPOCHS = 4
COPY_RATE = 0.05
# Numbers of copies whose weights are averaged.
AVERAGED = (2, 3)
# A recipient is named if the p-value, corrected for all recipients, is below this.
NAMED = 1e-6


def recipients_of(settings: Settings) -> list[str]:
    """Returns the names of all recipients: 1,000 with five seeds."""
    return [f"customer-{number}" for number in range(200 * settings.seeds)]


def _recipient_runs(settings: Settings) -> Iterator[Run]:
    """Yields runs that mark copies for a fifth of the recipients: 200 with 5 seeds."""
    host = from_scratch(settings, "default", 0)
    for first in range(0, len(recipients_of(settings)) // 5, COPIES_PER_RUN):
        perform = partial(_traced, settings=settings, host=host, first=first)
        yield Run({"first": first}, perform, host)


def _traced(
    store: NetworkStore, settings: Settings, host: Training, first: int
) -> Measurements:
    """Marks copies, averages some of them, and tests all for every recipient's mark."""
    mark = host.own_mark
    names = recipients_of(settings)
    chosen = names[first : first + COPIES_PER_RUN]
    weights = {}
    for name in chosen:
        own = replace(mark, recipient=name)
        copy = Training(SECOND + first, COPY_EPOCHS, own, start=host, rate=COPY_RATE)
        model, _ = store.network(copy)
        weights[name] = model.get_weights()
    # The recipients whose copies are leaked: one, or several with averaged weights.
    leaks = [
        chosen[start : start + size]
        for size in (1, *AVERAGED)
        for start in range(0, COPIES_PER_RUN - size + 1, size)
    ]
    pictures = store.pictures(host.task)
    kernels, errors = [], []
    for leak in leaks:
        copies = [weights[name] for name in leak]
        means = [np.mean(arrays, axis=0) for arrays in zip(*copies, strict=True)]
        model.set_weights(means)
        kernels.append(np.asarray(model.get_layer(mark.layers[0]).kernel))
        errors.append(pictures.test_error(model))
    log10_p: list[dict[str, float]] = [{} for _ in leaks]
    for name in names:
        key = replace(mark, recipient=name).key()
        for kernel, of_leak in zip(kernels, log10_p, strict=True):
            of_leak[name] = corrected(detect(kernel, key).log10_p, len(names))
    results = zip(leaks, errors, log10_p, strict=True)
    return {
        "leaks": [
            {"mixed": len(leak), "test_error": error, **_named(leak, of_leak)}
            for leak, error, of_leak in results
        ]
    }


def _named(leak: Sequence[str], log10_p: dict[str, float]) -> Measurements:
    """Returns how many recipients are named, rightly and wrongly.

    Also the largest p-value of a recipient whose copy was leaked, and the smallest
    p-value of another one.
    """
    guilty = [log10_p[name] for name in leak]
    innocent = [p for name, p in log10_p.items() if name not in leak]
    return {
        "named": sum(p < log10(NAMED) for p in guilty),
        "innocent_named": sum(p < log10(NAMED) for p in innocent),
        "log10_p": max(guilty),
        "innocent_log10_p": min(innocent),
    }


def _recipient_tables(rows: Sequence[Row]) -> list[ResultTable]:
    leaks = [leak for row in rows for leak in row["leaks"]]
    groups = grouped(leaks, mixed=(1, *AVERAGED))
    cells = {
        "leaks": lambda leaks: str(len(leaks)),
        "error, %": lambda leaks: percent(leaks, "test_error"),
        "all named": lambda leaks: _share(leaks, leaks[0]["mixed"]),
        "at least one named": lambda leaks: _share(leaks, 1),
        "others named": lambda leaks: str(
            sum(leak["innocent_named"] for leak in leaks)
        ),
        "log10 p, weakest": lambda leaks: worst_of(leaks, "log10_p", ".0f"),
        "log10 p, others": lambda leaks: format(
            min(leak["innocent_log10_p"] for leak in leaks), "z.1f"
        ),
    }
    notes = [
        f"A recipient is named if p < {NAMED:g} after correction for the number of "
        "recipients. Each copy is the owner's marked network, fine-tuned for a few "
        "epochs with one recipient's key in the same layer. A leak is one copy, or the "
        "mean of the weights of several. weakest: the largest p of a recipient whose "
        "copy was leaked. others: the smallest p of a recipient whose copy was not."
    ]
    title = "Recipients: tracing a leaked copy"
    return [make_table(title, groups, ["copies averaged"], cells, notes)]


def _share(leaks: Sequence[Row], needed: int) -> str:
    named = sum(leak["named"] >= needed for leak in leaks)
    return f"{named} of {len(leaks)}"


EXPERIMENT = Experiment(
    "recipients",
    "Does the mark of a leaked copy identify its recipient, and nobody else?",
    _recipient_runs,
    _recipient_tables,
)
