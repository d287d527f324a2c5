"""What happens to a mark: fine-tuning, pruning, overwriting, distilling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.attacks.pruning import Order, prune
from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.columns import COST, COUNT, printed
from keras_wm.research.experiments.experiment import Experiment, Run, trained_run
from keras_wm.research.experiments.measurement import mark_figures
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Figures, Row
from keras_wm.research.experiments.schemes import GROUPS, SCHEMES, Mark, group_layer
from keras_wm.research.experiments.settings import FEW_SEEDS, MAIN_MARKS, Settings
from keras_wm.research.experiments.studies.fine_tuning_and_distilling import (
    CASES,
    SECOND,
)
from keras_wm.research.experiments.tables import (
    Cell,
    ResultTable,
    having,
    mean_of,
    percent,
    table,
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
# An attacker's key is none of the owners'.
ATTACKER = 10_000


def _fine_tuning_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, FEW_SEEDS)):
        for scheme in settings.repeated_marks(seed):
            host = from_scratch(settings, scheme, seed)
            yield trained_run(
                {"scheme": scheme, "case": "before", "rate": 0.0, "seed": seed},
                host,
                _marked(host),
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
                    yield trained_run(labels | {"seed": seed}, second, _marked(host))


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
    of_papers = printed(
        lambda row: (
            papers.ATTACK_FINE_TUNING.get(row["case"])
            if (row["scheme"], row["rate"]) == ("random", INITIAL_RATE)
            else None
        )
    )
    return [
        table(
            "Attack: fine-tuning without the mark",
            groups,
            ["mark", "case", "rate"],
            COUNT | COST | of_papers,
            [
                "The other task is to tell by how many quarters a picture is turned, "
                "with a new head, and the test error is that task's; the papers go "
                "from Caltech-101 to CIFAR-10, at the rate 0.1."
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
            yield trained_run(labels, second, _marked(host))


def _pruned(store: NetworkStore, host: Training) -> Figures:
    """A network's figures by order and share of pruning."""
    model, _ = store.network(host)
    pictures = store.pictures(host.task)
    layers = convolutions(model)
    kernels = [np.asarray(layer.kernel) for layer in layers]
    curves: Figures = {order: [] for order in ORDERS}
    for order in ORDERS:
        for share in SHARES:
            for layer, kernel in zip(layers, kernels, strict=True):
                layer.kernel.assign(prune(kernel, share, order))
            found = mark_figures(model, _marked(host))
            point = {name: found[name] for name in ("ber", "log10_p")}
            error = pictures.test_error(model)
            curves[order].append({"share": share, "test_error": error, **point})
    return {"curves": curves}


def _marked(host: Training) -> Mark:
    assert host.mark is not None  # noqa: S101 (attacks are on marked networks)
    return host.mark


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
        "n": lambda found: str(len(having(found, order="ascending"))),
        "error": lambda found: percent(having(found, order="ascending"), "test_error"),
        "BER": lambda found: _worst_ber(found, "ascending"),
        "log p": lambda found: worst_of(
            having(found, order="ascending"), "log10_p", "z.0f"
        ),
        "descending": lambda found: _worst_ber(found, "descending"),
        "random": lambda found: _worst_ber(found, "random"),
        "papers": lambda found: _printed_pruning(found[0]),
    }
    return [
        table(
            "Attack: pruning, of every convolution",
            groups,
            ["mark", "pruned"],
            cells,
            [
                "Error, BER and p: by ascending magnitude, as in the papers, which "
                "print no test errors. Then the BER in the two other orders."
            ],
        ),
        table(
            "Attack: pruning, and fine-tuning the rest",
            trained,
            ["mark", "pruned"],
            COST,
        ),
    ]


def _worst_ber(points: Sequence[Row], order: str) -> str:
    return worst_of(having(points, order=order), "ber", ".2g")


def _printed_pruning(row: Row) -> str:
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

    def curves(figure: str) -> dict[str, list[tuple[float, float]]]:
        return {
            scheme: [
                (
                    share,
                    float(
                        mean_of(having(points, scheme=scheme, share=share), figure, "")
                    ),
                )
                for share in values(points, "share")
            ]
            for scheme in values(points, "scheme")
        }

    return {
        "pruning": plots.plot_attack(
            curves("ber"), curves("test_error"), "share of weights pruned, ascending"
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
                yield trained_run(labels, second, _marked(host))


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
    of_papers = printed(
        lambda row: (
            papers.ATTACK_OVERWRITING.get((row["bits"], row["group"]))
            if row["scheme"] == "random"
            else None
        )
    )
    return [
        table(
            "Attack: overwriting by the papers' mark (random) with another key",
            groups,
            ["mark", "group", "new bits"],
            COST | of_papers,
            [
                "The bit error rate, E_R and p-values are those of the first mark. "
                "Both marks grow with the steps of their training, 156,400 in the "
                "papers, and E_R with what the second one destroys."
            ],
        )
    ]


def _distillation_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, FEW_SEEDS)):
        for scheme in settings.repeated_marks(seed):
            host = from_scratch(settings, scheme, seed)
            student = Training(SECOND + seed, settings.training_epochs, teacher=host)
            yield trained_run({"scheme": scheme, "seed": seed}, student, _marked(host))


def _distillation_tables(rows: Sequence[Row]) -> list[ResultTable]:
    of_papers = printed(
        lambda row: papers.ATTACK_DISTILLATION if row["scheme"] == "random" else None
    )
    groups = [([scheme], having(rows, scheme=scheme)) for scheme in SCHEMES]
    return [
        table(
            "Attack: distillation into a fresh network",
            groups,
            ["mark"],
            COUNT | COST | of_papers,
            ["No weight is copied, so no mark can survive: a limit of the method."],
        )
    ]


FINE_TUNING = Experiment(
    "attack-fine-tuning",
    "Does the mark outlive fine-tuning without it?",
    _fine_tuning_runs,
    _fine_tuning_tables,
)
PRUNING = Experiment(
    "attack-pruning",
    "Does the mark outlive pruning?",
    _pruning_runs,
    _pruning_tables,
    _pruning_figures,
)
OVERWRITING = Experiment(
    "attack-overwriting",
    "Does the mark outlive another mark in the same layer?",
    _overwriting_runs,
    _overwriting_tables,
)
DISTILLATION = Experiment(
    "attack-distillation",
    "Does the mark pass over to a network that learns from the marked one?",
    _distillation_runs,
    _distillation_tables,
)
