"""The experiment `covertness`: the networks that it compares, and its tables."""

import re
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_wm.embedding.anchoring.kernel_inputs import KernelInputs, sampled_rows
from keras_wm.research.detectability import (
    PAIR_STATISTICS,
    STATISTICS,
    kernel_statistics,
    sorted_weights,
)
from keras_wm.research.experiments import EXPERIMENTS, Settings
from keras_wm.research.experiments.catalogue import experiments_named
from keras_wm.research.experiments.run_records import Records
from keras_wm.research.experiments.runner import recorded_rows
from keras_wm.research.experiments.studies.kernel_pairs import KINDS, pair_of_kernels
from keras_wm.research.experiments.studies.outsider import MIN_NETWORKS, Features
from keras_wm.research.experiments.tables import having
from keras_wm.research.experiments.training import mark_to_test
from keras_wm.research.hosts.wide_resnet import wide_resnet
from keras_wm.research.input_statistics import INPUT_STATISTICS, input_statistics
from keras_wm.scheme.detection import detect
from tests.research.experiments.conftest import made_pictures, run_eagerly

EXPERIMENT = EXPERIMENTS["covertness"]
NETWORKS = 20


def test_it_is_in_the_robustness_suite_and_has_a_name_of_its_own():
    assert EXPERIMENT not in experiments_named("all")
    assert EXPERIMENT in experiments_named("robustness")
    assert list(experiments_named("covertness")) == [EXPERIMENT]


def test_forty_networks_of_each_kind_share_no_seed():
    runs = [run for run in EXPERIMENT.runs(Settings()) if "scheme" in run.labels]
    seeds = [run.labels["seed"] for run in runs]
    assert len(set(seeds)) == len(seeds)
    kinds = Counter(run.labels["scheme"] for run in runs)
    assert kinds == {
        **dict.fromkeys(("unmarked", "random", "default"), 40),
        **dict.fromkeys(("direct", "diff"), 1),
    }


def test_more_seeds_add_networks_and_keep_the_others():
    few, many = (
        [run.labels for run in EXPERIMENT.runs(Settings(seeds=seeds))]
        for seeds in (2, 3)
    )
    for kind in ("scheme", "pair"):
        of_few, of_many = (
            [labels for labels in runs if kind in labels] for runs in (few, many)
        )
        assert len(of_few) < len(of_many)
        assert of_many[: len(of_few)] == of_few


def test_the_kernels_of_a_pair_share_nothing_but_the_key():
    settings = Settings(k=1, marks=("default",))
    kernels = {kind: pair_of_kernels(settings, kind, 0) for kind in KINDS}
    key = mark_to_test(settings, "default", 0).key()
    for kind, slots in {"distinct slots": (0, 1), "same slot": (0, 0)}.items():
        for kernel, slot in zip(kernels[kind], slots, strict=True):
            assert kernel.shape == (3, 3, 16, 16)
            assert detect(kernel, key.in_slot(slot)).ber == 0
            assert detect(kernel, key.in_slot(1 - slot)).ber > 0.2
    assert all(detect(kernel, key).ber > 0.2 for kernel in kernels["unmarked"])
    first, second = kernels["distinct slots"]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_a_layer_is_compared_with_the_previous_and_the_next_one(monkeypatch):
    run_eagerly(monkeypatch)
    model = wide_resnet((8, 8, 1), 3, n=1, k=1)

    class SameNetwork:
        def network(self, training):
            return model, {}

        def pictures(self, task):
            return made_pictures()

    run = next(iter(EXPERIMENT.runs(Settings(k=1, bits=32, marks=("random",)))))
    measured = run.perform(SameNetwork())

    def statistics(layer):
        return kernel_statistics(np.asarray(model.get_layer(layer).kernel))

    previous, following = (statistics(f"conv{group}_block1_conv1") for group in (2, 3))
    own, neighbours = measured["statistics"], measured["neighbours"]
    assert own.keys() == neighbours.keys() == {*STATISTICS, *INPUT_STATISTICS}
    expected = statistics("conv2_block1_conv2")
    assert {name: own[name] for name in STATISTICS} == pytest.approx(expected, rel=1e-5)
    assert {name: neighbours[name] for name in STATISTICS} == pytest.approx(
        {name: (previous[name] + following[name]) / 2 for name in STATISTICS}, rel=1e-5
    )


def test_the_outsider_looks_where_the_inputs_of_the_layer_are(monkeypatch):
    """The outputs that the layer has, by the layer itself."""
    run_eagerly(monkeypatch)
    model = wide_resnet((8, 8, 1), 3, n=1, k=1)
    layer = model.get_layer("conv2_block1_conv2")
    x = made_pictures().x_test
    reader = KernelInputs.of(layer, layer.kernel)
    rows = np.concatenate([seen for (seen,) in sampled_rows(model, [reader], x, 64)])
    outputs = np.asarray(keras.Model(model.input, layer.output)(x, training=False))
    kernel = np.asarray(layer.kernel)
    measured = input_statistics(kernel, rows.astype(np.float64))
    # In units of the kernel's standard deviation and of the inputs' size.
    unit = kernel.std() ** 2 * np.square(rows).sum(axis=1).mean()
    expected = np.square(outputs).mean() / unit
    assert measured["energy of outputs"] == pytest.approx(expected, rel=1e-3)


def made_row(scheme, seed, scale):
    """Returns the row of a network with normal weights, scaled in the marked layer."""
    rng = np.random.default_rng(seed)
    kernel, neighbour = rng.normal(size=(2, 48, 16))
    kernel *= scale
    return {
        "scheme": scheme,
        "seed": seed,
        "test_error": 0.01,
        "ber": 0.0,
        "embedding_loss": 0.1,
        "log10_p": -40.0,
        "kernel_std": float(kernel.std()),
        "mean_filter_std": float(kernel.mean(axis=1).std()),
        "statistics": kernel_statistics(kernel),
        "neighbours": kernel_statistics(neighbour),
        "sorted_weights": sorted_weights(kernel).tolist(),
    }


@pytest.fixture(scope="module")
def rows():
    """Rows where the papers' mark widens the weights by half, and the default not."""
    scales = {"unmarked": 1.0, "random": 1.5, "default": 1.0}
    return [
        made_row(scheme, 100 * kind + number, scale)
        for kind, (scheme, scale) in enumerate(scales.items())
        for number in range(NETWORKS)
    ]


@pytest.fixture(scope="module")
def tables(rows):
    return EXPERIMENT.tables(rows)


def test_statistics_that_old_records_lack_are_left_out(rows):
    new = [
        row
        | {
            kind: row[kind] | dict.fromkeys(INPUT_STATISTICS, 1.0)
            for kind in ("statistics", "neighbours")
        }
        for row in rows
    ]
    assert Features.of(new).statistics == [*STATISTICS, *INPUT_STATISTICS]
    assert Features.of([*rows[:1], *new[1:]]).statistics == list(STATISTICS)


def lines(table):
    """Returns the rows of a table by their first cells."""
    return {row[0]: row[1:] for row in table.rows}


def area(text):
    """Returns 0.5 for `0.50 [0.40, 0.60]`."""
    return float(text.split()[0])


def test_the_outsider_finds_what_differs_and_nothing_else(tables):
    verdicts = lines(tables[0])
    assert area(verdicts["random"][1]) == 1
    assert verdicts["random"][2] == "scale"
    for unseen in ("default", "no mark against no mark"):
        assert 0.25 < area(verdicts[unseen][1]) < 0.75
    hindsight, chance = map(float, verdicts["default"][3:])
    assert 0.5 < hindsight < chance < 0.9


def test_pairs_are_compared_with_pairs_without_a_mark():
    shifts = {"unmarked": 0, "distinct slots": 0, "same slot": 9}
    rng = np.random.default_rng(2)
    rows = [
        {"pair": kind, "seed": number}
        | {name: rng.normal() + shift for name in PAIR_STATISTICS}
        for kind, shift in shifts.items()
        for number in range(NETWORKS)
    ]
    table = EXPERIMENT.tables(rows)[-1]
    assert list(lines(table)) == list(PAIR_STATISTICS)
    for distinct, same in lines(table).values():
        assert 0.2 < area(distinct) < 0.8
        assert area(same) == 1
    assert not EXPERIMENT.tables(rows[:3])[-1].rows
    assert EXPERIMENT.figures(rows) == {}


def test_each_detector_has_a_row(tables):
    detectors = lines(tables[1])
    assert list(detectors) == [*STATISTICS, "all statistics", "sorted weights"]
    scale, minus_neighbours, unseen, _ = map(area, detectors["scale"])
    assert scale == minus_neighbours == 1
    assert 0.25 < unseen < 0.75
    # Sorted weights are divided by their scale.
    assert 0.25 < area(detectors["sorted weights"][0]) < 0.75


def test_the_spread_of_weights_is_shown_with_its_deviation_over_networks(rows, tables):
    weights = lines(tables[2])
    stds = [row["kernel_std"] for row in rows if row["scheme"] == "random"]
    expected = f"{np.mean(stds):.5f} ± {np.std(stds, ddof=1):.5f}"
    assert weights["random"][:2] == [str(NETWORKS), expected]


def test_too_few_networks_are_not_compared(rows):
    few = [row for row in rows if row["seed"] % 100 < MIN_NETWORKS - 1]
    verdicts, detectors, weights, _ = EXPERIMENT.tables(few)
    assert not verdicts.rows and not detectors.rows
    assert len(weights.rows) == 3
    assert EXPERIMENT.figures(few) == {}


RECORDS = Path(__file__).parents[4] / "notebooks/records/digits_covertness.jsonl"


@pytest.mark.parametrize("optimizer", ["papers", "adam"])
def test_the_recorded_networks_are_told_apart_as_the_readme_says(optimizer):
    settings = Settings(
        seeds=10, marks=("default",), optimizer=optimizer, decoupled=True
    )
    rows = recorded_rows(EXPERIMENT, settings, Records(RECORDS))
    line = lines(EXPERIMENT.tables(rows)[0])["default"]
    assert line[0] == "80 and 80"
    readme = (RECORDS.parents[2] / "README.md").read_text("utf-8")
    found, lower, upper = re.findall(r"\d\.\d\d", line[1])
    stated = " ".join(readme.split())
    assert re.search(f"is {found}, (with|from) .*{lower} to {upper}", stated)
    assert all(row["ber"] == 0 for row in having(rows, scheme="default"))
