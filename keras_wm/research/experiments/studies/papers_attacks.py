"""The experiments `attack-fine-tuning`, `-pruning`, `-overwriting`, `-distillation`.

They are the attacks of the papers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.attacks.pruning import Order, prune
from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.experiment import Experiment, Run, trained_run
from keras_wm.research.experiments.measurement import measure_mark
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import GROUPS, SCHEMES, Mark, group_layer
from keras_wm.research.experiments.settings import FEW_SEEDS, MAIN_MARKS, Settings
from keras_wm.research.experiments.studies.fine_tuning_and_distilling import (
    CASES,
    SECOND,
)
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
            yield trained_run(
                {"scheme": scheme, "case": "before", "rate": 0.0, "seed": seed},
                host,
                host.own_mark,
            )
            for case, task in CASES.items():
                for rate in RATES:
                    labels = {"scheme": scheme, "case": case, "rate": rate}
                    second = Training(
                        SECOND + seed,
                        settings.further_epochs,
                        task=task,
                        start=host,
                        rate=rate,
                    )
                    yield trained_run(labels | {"seed": seed}, second, host.own_mark)


def _fine_tuning_tables(rows: Sequence[Row]) -> list[ResultTable]:
    cases, rates = ("before", *CASES), (0.0, *RATES)
    return [
        make_table(
            "Attack: fine-tuning without the mark",
            grouped(rows, scheme=SCHEMES, case=cases, rate=rates),
            ["mark", "case", "rate"],
            COUNT | COST | published_column(papers.ATTACK_FINE_TUNING, "case", "rate"),
            [
                "before: the marked network. other task: to predict by how many "
                "quarter turns a picture is rotated, with a new head and that task's "
                "test error. The papers fine-tune from Caltech-101 to CIFAR-10, at a "
                "learning rate of 0.1."
            ],
        )
    ]


def _pruning_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(settings.seeds):
        for scheme in settings.repeated_marks(seed):
            host = from_scratch(settings, scheme, seed)
            labels = {"scheme": scheme, "seed": seed}
            yield Run(labels, partial(_pruned, host=host), host)
    for scheme in settings.marks:
        host = from_scratch(settings, scheme, 0)
        for share in TRAINED_ON:
            second = Training(SECOND, settings.further_epochs, start=host, pruned=share)
            labels = {"scheme": scheme, "share": share, "seed": 0}
            yield trained_run(labels, second, host.own_mark)


def _pruned(store: NetworkStore, host: Training) -> Measurements:
    """Returns the test error and the mark after pruning, by order and share."""
    model, _ = store.network(host)
    pictures = store.pictures(host.task)
    layers = convolutions(model)
    kernels = [np.asarray(layer.kernel) for layer in layers]
    curves: Measurements = {order: [] for order in ORDERS}
    for order in ORDERS:
        for share in SHARES:
            for layer, kernel in zip(layers, kernels, strict=True):
                layer.kernel.assign(prune(kernel, share, order))
            measured = measure_mark(model, host.own_mark)
            point = {name: measured[name] for name in ("ber", "log10_p")}
            error = pictures.test_error(model)
            curves[order].append({"share": share, "test_error": error, **point})
    return {"curves": curves}


def _pruning_tables(rows: Sequence[Row]) -> list[ResultTable]:
    trained = [row for row in rows if "share" in row]
    published = {
        share: papers.PublishedResult(ber=ber)
        for share, ber in papers.ATTACK_PRUNING.items()
    }
    ascending = {name: cell for name, cell in COST.items() if name != "E_R"}
    return [
        make_table(
            "Attack: pruning of every convolution",
            grouped(_pruning_points(rows), scheme=SCHEMES, share=SHARES),
            ["mark", "pruned"],
            COUNT
            | ascending
            | {
                "BER, descending": lambda rows: worst_of(rows, "descending", ".2g"),
                "BER, random": lambda rows: worst_of(rows, "random", ".2g"),
            }
            | published_column(published, "share"),
            [
                "error, BER and log10 p: after pruning by ascending magnitude, as in "
                "the papers, which do not report test errors. The last columns are the "
                "BER after pruning in descending and in random order."
            ],
        ),
        make_table(
            "Attack: pruning, then fine-tuning",
            grouped(trained, scheme=SCHEMES, share=TRAINED_ON),
            ["mark", "pruned"],
            COST,
        ),
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
    pruned = _pruning_points(rows)

    def curves(name: str) -> dict[str, list[tuple[float, float]]]:
        points: dict[str, list[tuple[float, float]]] = {}
        for (scheme, _), group in grouped(pruned, scheme=None, share=None):
            mean = float(np.mean([row[name] for row in group]))
            points.setdefault(scheme, []).append((group[0]["share"], mean))
        return points

    return {
        "pruning": plots.plot_attack(
            curves("ber"),
            curves("test_error"),
            "share of weights pruned, by ascending magnitude",
        )
    }


def _overwriting_runs(settings: Settings) -> Iterator[Run]:
    for group in GROUPS:
        for scheme in settings.marks:
            if group != settings.group and scheme not in MAIN_MARKS:
                continue
            layers = (group_layer(group),)
            host = from_scratch(settings, scheme, 0, layers=layers)
            for bits in NEW_BITS:
                second = Training(
                    SECOND,
                    settings.further_epochs,
                    Mark("random", layers, bits, owner=ATTACKER),
                    start=host,
                )
                labels = {"scheme": scheme, "group": group, "bits": bits, "seed": 0}
                yield trained_run(labels, second, host.own_mark)


def _overwriting_tables(rows: Sequence[Row]) -> list[ResultTable]:
    return [
        make_table(
            "Attack: overwriting with the papers' mark (random) of another key",
            grouped(rows, scheme=SCHEMES, group=GROUPS, bits=NEW_BITS),
            ["mark", "group", "new bits"],
            COST | published_column(papers.ATTACK_OVERWRITING, "bits", "group"),
            [
                "BER, E_R and log10 p are those of the first mark. Both marks become "
                "stronger with the number of training steps, 156,400 in the papers. "
                "E_R grows with the damage that the second mark does."
            ],
        )
    ]


def _distillation_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, FEW_SEEDS)):
        for scheme in settings.repeated_marks(seed):
            host = from_scratch(settings, scheme, seed)
            student = Training(SECOND + seed, settings.training_epochs, teacher=host)
            yield trained_run({"scheme": scheme, "seed": seed}, student, host.own_mark)


def _distillation_tables(rows: Sequence[Row]) -> list[ResultTable]:
    return [
        make_table(
            "Attack: distillation into a new network",
            grouped(rows, scheme=SCHEMES),
            ["mark"],
            COUNT | COST | published_column(papers.ATTACK_DISTILLATION, "scheme"),
            [
                "A distilled network takes over no weights, so no mark can survive. "
                "This is a limit of the method."
            ],
        )
    ]


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
