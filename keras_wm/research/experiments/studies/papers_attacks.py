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
    Cell,
    ResultTable,
    having,
    make_table,
    mean_of,
    percent,
    published_column,
    values,
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
    groups = [
        (
            [scheme, case, f"{rate:g}" if rate else ""],
            having(rows, scheme=scheme, case=case, rate=rate),
        )
        for scheme in SCHEMES
        for case in ("before", *CASES)
        for rate in (0.0, *RATES)
    ]
    published = published_column(
        lambda row: (
            papers.ATTACK_FINE_TUNING.get(row["case"])
            if (row["scheme"], row["rate"]) == ("random", INITIAL_RATE)
            else None
        )
    )
    return [
        make_table(
            "Attack: fine-tuning without the mark",
            groups,
            ["mark", "case", "rate"],
            COUNT | COST | published,
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
    points = _pruning_points(rows)
    after = [row for row in rows if "share" in row]
    groups = [
        ([scheme, f"{100 * share:g} %"], having(points, scheme=scheme, share=share))
        for scheme in SCHEMES
        for share in SHARES
    ]
    trained = [
        ([scheme, f"{100 * share:g} %"], having(after, scheme=scheme, share=share))
        for scheme in SCHEMES
        for share in TRAINED_ON
    ]
    cells: dict[str, Cell] = {
        "networks": lambda rows: str(len(having(rows, order="ascending"))),
        "error, %": lambda rows: percent(having(rows, order="ascending"), "test_error"),
        "BER": lambda rows: _worst_ber(rows, "ascending"),
        "log10 p": lambda rows: worst_of(
            having(rows, order="ascending"), "log10_p", "z.0f"
        ),
        "BER, descending": lambda rows: _worst_ber(rows, "descending"),
        "BER, random": lambda rows: _worst_ber(rows, "random"),
        "papers": lambda rows: _published_pruning(rows[0]),
    }
    return [
        make_table(
            "Attack: pruning of every convolution",
            groups,
            ["mark", "pruned"],
            cells,
            [
                "error, BER and log10 p: after pruning by ascending magnitude, as in "
                "the papers, which do not report test errors. The last columns are the "
                "BER after pruning in descending and in random order."
            ],
        ),
        make_table(
            "Attack: pruning, then fine-tuning",
            trained,
            ["mark", "pruned"],
            COST,
        ),
    ]


def _worst_ber(points: Sequence[Row], order: str) -> str:
    return worst_of(having(points, order=order), "ber", ".2g")


def _published_pruning(row: Row) -> str:
    if row["scheme"] != "random":
        return ""
    ber = papers.ATTACK_PRUNING.get(row["share"])
    return "" if ber is None else f"-/-/{ber:.2g}"


def _pruning_points(rows: Sequence[Row]) -> list[Row]:
    return [
        {"scheme": row["scheme"], "order": order, **point}
        for row in rows
        for order, points in row.get("curves", {}).items()
        for point in points
    ]


def _pruning_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    if not rows:
        return {}
    points = having(_pruning_points(rows), order="ascending")

    def curves(name: str) -> dict[str, list[tuple[float, float]]]:
        return {
            scheme: [
                (
                    share,
                    float(
                        mean_of(having(points, scheme=scheme, share=share), name, "")
                    ),
                )
                for share in values(points, "share")
            ]
            for scheme in values(points, "scheme")
        }

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
    groups = [
        (
            [scheme, f"conv {group}", str(bits)],
            having(rows, scheme=scheme, group=group, bits=bits),
        )
        for scheme in SCHEMES
        for group in GROUPS
        for bits in NEW_BITS
    ]
    published = published_column(
        lambda row: (
            papers.ATTACK_OVERWRITING.get((row["bits"], row["group"]))
            if row["scheme"] == "random"
            else None
        )
    )
    return [
        make_table(
            "Attack: overwriting with the papers' mark (random) of another key",
            groups,
            ["mark", "group", "new bits"],
            COST | published,
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
    published = published_column(
        lambda row: papers.ATTACK_DISTILLATION if row["scheme"] == "random" else None
    )
    groups = [([scheme], having(rows, scheme=scheme)) for scheme in SCHEMES]
    return [
        make_table(
            "Attack: distillation into a new network",
            groups,
            ["mark"],
            COUNT | COST | published,
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
