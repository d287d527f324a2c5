"""The experiments `attack-fine-tuning`, `-pruning`, `-overwriting`, `-distillation`.

They are the attacks of the papers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.attacks.pruning import Order, prune
from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.experiment import (
    Experiment,
    Run,
    network_run,
    trained_run,
)
from keras_wm.research.experiments.measurement import measure_network
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import GROUPS, SCHEMES, Mark, group_layer
from keras_wm.research.experiments.settings import FEW_SEEDS, MAIN_MARKS, Settings
from keras_wm.research.experiments.studies.embedding import CASES, SECOND
from keras_wm.research.experiments.tables import (
    COST,
    COUNT,
    ResultTable,
    grouped,
    make_table,
    published_column,
    worst_of,
)
from keras_wm.research.experiments.training import Training, convolutions, from_scratch
from keras_wm.research.hosts.wide_resnet import INITIAL_RATE

RATES = (INITIAL_RATE / 10, INITIAL_RATE)
SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 0.9, 0.95, 0.99)
TRAINED_ON = (0.65, 0.8, 0.95, 0.99)
ORDERS: tuple[Order, ...] = ("ascending", "descending", "random")
NEW_BITS = (256, 512, 1024, 2048)
# The attacker's number, which differs from the owners', and so the key.
ATTACKER = 10_000


def _fine_tuning_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, FEW_SEEDS)):
        for scheme in settings.repeated_marks(seed):
            host = from_scratch(settings, scheme, seed)
            labels = {"scheme": scheme, "case": "before", "rate": 0.0, "seed": seed}
            yield trained_run(labels, host, host.own_mark)
            again = Training(SECOND + seed, settings.further_epochs, start=host)
            for case, task in CASES.items():
                for rate in RATES:
                    second = replace(again, task=task, rate=rate)
                    changed = labels | {"case": case, "rate": rate}
                    yield trained_run(changed, second, host.own_mark)


def _fine_tuning_tables(rows: Sequence[Row]) -> list[ResultTable]:
    cases, rates = ("before", *CASES), (0.0, *RATES)
    groups = grouped(rows, scheme=SCHEMES, case=cases, rate=rates)
    published = published_column(papers.ATTACK_FINE_TUNING, "case", "rate")
    notes = [
        "before: the marked network. other task: to predict by how many quarter turns "
        "a picture is rotated, with a new head and that task's test error. The papers "
        "fine-tune from Caltech-101 to CIFAR-10, at a learning rate of 0.1."
    ]
    title, headings = "Attack: fine-tuning without the mark", ["mark", "case", "rate"]
    return [make_table(title, groups, headings, COUNT | COST | published, notes)]


def _pruning_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(settings.seeds):
        for scheme in settings.repeated_marks(seed):
            host = from_scratch(settings, scheme, seed)
            labels = {"scheme": scheme, "seed": seed}
            yield network_run(labels, host, _pruned, mark=host.own_mark)
    for scheme in settings.marks:
        host = from_scratch(settings, scheme, 0)
        for share in TRAINED_ON:
            second = Training(SECOND, settings.further_epochs, start=host, pruned=share)
            labels = {"scheme": scheme, "share": share, "seed": 0}
            yield trained_run(labels, second, host.own_mark)


def _pruned(model: Any, pictures: Pictures, mark: Mark) -> Measurements:
    """Returns the test error and the mark after pruning, by order and share."""
    layers = convolutions(model)
    kernels = [np.asarray(layer.kernel) for layer in layers]
    curves: Measurements = {order: [] for order in ORDERS}
    for order in ORDERS:
        for share in SHARES:
            for layer, kernel in zip(layers, kernels, strict=True):
                layer.kernel.assign(prune(kernel, share, order))
            measured = measure_network(model, pictures, mark)
            point = {name: measured[name] for name in ("test_error", "ber", "log10_p")}
            curves[order].append({"share": share, **point})
    return {"curves": curves}


def _pruning_tables(rows: Sequence[Row]) -> list[ResultTable]:
    pruned = grouped(_pruning_points(rows), scheme=SCHEMES, share=SHARES)
    trained = [row for row in rows if "share" in row]
    shares = papers.ATTACK_PRUNING.items()
    published = {share: papers.PublishedResult(ber=ber) for share, ber in shares}
    cells = COUNT | {name: cell for name, cell in COST.items() if name != "E_R"}
    cells |= {
        "BER, descending": lambda rows: worst_of(rows, "descending", ".2g"),
        "BER, random": lambda rows: worst_of(rows, "random", ".2g"),
    }
    cells |= published_column(published, "share")
    notes = [
        "error, BER and log10 p: after pruning by ascending magnitude, as in the "
        "papers, which do not report test errors. The last columns are the BER after "
        "pruning in descending and in random order."
    ]
    title, headings = "Attack: pruning of every convolution", ["mark", "pruned"]
    again = grouped(trained, scheme=SCHEMES, share=TRAINED_ON)
    return [
        make_table(title, pruned, headings, cells, notes),
        make_table("Attack: pruning, then fine-tuning", again, headings, COST),
    ]


def _pruning_points(rows: Sequence[Row]) -> list[Row]:
    """Returns a row for each network and share that was pruned.

    It holds the results of pruning in ascending order, and the bit error rate of each
    order by the order's name.
    """
    return [
        {"scheme": row["scheme"], **points[0]}
        | {order: point["ber"] for order, point in zip(ORDERS, points, strict=True)}
        for row in rows
        if "curves" in row
        for points in zip(*(row["curves"][order] for order in ORDERS), strict=True)
    ]


def _pruning_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    if not rows:
        return {}
    points = _pruning_points(rows)

    def curves(name: str) -> dict[str, list[tuple[float, float]]]:
        return {
            scheme: [
                (group[0]["share"], float(np.mean([row[name] for row in group])))
                for _, group in grouped(of_scheme, share=None)
            ]
            for (scheme,), of_scheme in grouped(points, scheme=None)
        }

    label = "share of weights pruned, by ascending magnitude"
    return {"pruning": plots.plot_attack(curves("ber"), curves("test_error"), label)}


def _overwriting_runs(settings: Settings) -> Iterator[Run]:
    for group in GROUPS:
        for scheme in settings.marks:
            if group != settings.group and scheme not in MAIN_MARKS:
                continue
            layers = (group_layer(group),)
            host = from_scratch(settings, scheme, 0, layers=layers)
            for bits in NEW_BITS:
                mark = Mark("random", layers, bits, owner=ATTACKER)
                second = Training(SECOND, settings.further_epochs, mark, start=host)
                labels = {"scheme": scheme, "group": group, "bits": bits, "seed": 0}
                yield trained_run(labels, second, host.own_mark)


def _overwriting_tables(rows: Sequence[Row]) -> list[ResultTable]:
    title = "Attack: overwriting with the papers' mark (random) of another key"
    groups = grouped(rows, scheme=SCHEMES, group=GROUPS, bits=NEW_BITS)
    cells = COST | published_column(papers.ATTACK_OVERWRITING, "bits", "group")
    notes = [
        "BER, E_R and log10 p are those of the first mark. Both marks become stronger "
        "with the number of training steps, 156,400 in the papers. E_R grows with the "
        "damage that the second mark does."
    ]
    return [make_table(title, groups, ["mark", "group", "new bits"], cells, notes)]


def _distillation_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, FEW_SEEDS)):
        for scheme in settings.repeated_marks(seed):
            host = from_scratch(settings, scheme, seed)
            student = Training(SECOND + seed, settings.training_epochs, teacher=host)
            yield trained_run({"scheme": scheme, "seed": seed}, student, host.own_mark)


def _distillation_tables(rows: Sequence[Row]) -> list[ResultTable]:
    title = "Attack: distillation into a new network"
    groups = grouped(rows, scheme=SCHEMES)
    cells = COUNT | COST | published_column(papers.ATTACK_DISTILLATION, "scheme")
    notes = [
        "A distilled network takes over no weights, so no mark can survive. This is a "
        "limit of the method."
    ]
    return [make_table(title, groups, ["mark"], cells, notes)]


FINE_TUNING = Experiment(
    "attack-fine-tuning",
    "Does the mark survive fine-tuning?",
    _fine_tuning_runs,
    _fine_tuning_tables,
)
PRUNING = Experiment(
    "attack-pruning",
    "Does the mark survive pruning?",
    _pruning_runs,
    _pruning_tables,
    _pruning_figures,
)
OVERWRITING = Experiment(
    "attack-overwriting",
    "Does the mark survive another mark in the same layer?",
    _overwriting_runs,
    _overwriting_tables,
)
DISTILLATION = Experiment(
    "attack-distillation",
    "Does the mark pass to a network that is distilled from the marked one?",
    _distillation_runs,
    _distillation_tables,
)
