"""Every experiment: its runs, and what its tables and figures show of them."""

import json
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from keras_wm.research.attacks import training
from keras_wm.research.experiments import EXPERIMENTS, Settings
from keras_wm.research.experiments.catalogue import experiments_named
from keras_wm.research.experiments.schemes import SCHEMES
from keras_wm.research.hosts.wide_resnet import wide_resnet
from tests.research.experiments.conftest import made_pictures

# What the papers print of their mark; tables show it whatever was measured.
PRINTED = {
    "embedding": "7.97/4.8e-4/-",
    "fine-tuning": "7.70/4.9e-4/-",
    "distillation": "7.75/5.0e-4/-",
    "capacity": "8.43/6.7e-2/0",
    "without-training": "10.57/1.7e-1/0",
    "attack-fine-tuning": "7.69/8.7e-4/0",
    "attack-pruning": "-/-/0.0078",
    "attack-overwriting": "7.43/1.7e0/0.31",
    "attack-distillation": "8.40/-/0.54",
}


class NetworkStore:
    """Gives the same network for every training, without training it."""

    def __init__(self, pictures):
        self.pictures = lambda task: pictures
        self._model = wide_resnet((8, 8, 1), 3, n=1, k=1)

    def network(self, training):
        epochs = training.epochs
        history = {
            "test_error": [0.9, *[0.25] * epochs],
            "loss": [1.0] * epochs,
            "ber": [0.5, *[0.0] * epochs],
        }
        return self._model, history


@pytest.fixture(scope="module")
def store():
    few = made_pictures()
    # Many times over: Keras takes longer to begin an epoch than for four steps of it.
    x, y = np.tile(few.x_train, (10, 1, 1, 1)), np.tile(few.y_train, 10)
    return NetworkStore(replace(few, x_train=x, y_train=y))


@pytest.fixture(scope="module", params=list(EXPERIMENTS))
def experiment(request):
    return EXPERIMENTS[request.param]


@pytest.fixture(scope="module")
def rows(experiment, store):
    """Labels and figures of every run of a small study."""
    settings = Settings(
        epochs=2,
        seeds=1,
        k=1,
        bits=32,
        marks=("random", "default"),
        families=("fusion",),
    )
    rows = []
    with pytest.MonkeyPatch.context() as patched:
        # Attackers who go through the pictures once.
        patched.setattr(training, "STEPS", 12)
        for run in experiment.runs(settings):
            figures = json.loads(json.dumps(run.perform(store)))
            rows.append({**run.labels, **figures, "seconds": 1.0})
    return rows


def test_runs_have_labels_of_their_own_that_records_can_hold(experiment):
    labels = [run.labels for run in experiment.runs(Settings())]
    texts = [json.dumps(one, sort_keys=True) for one in labels]
    assert len(set(texts)) == len(texts)
    assert [json.loads(text) for text in texts] == [
        dict(sorted(one.items())) for one in labels
    ]


def test_every_mark_is_in_every_experiment_that_compares_marks(experiment):
    schemes = {run.labels.get("scheme") for run in experiment.runs(Settings())}
    if schemes == {None}:
        assert experiment.name in (
            "forging",
            "plain-host",
            "recipients",
            "several-layers",
        )
        return
    # More bits than columns are no question for the two sparse marks, and not every
    # attack is tried on them.
    few = experiment.name in ("capacity", "resistance")
    assert schemes >= set(SCHEMES) - ({"direct", "diff"} if few else set())


def test_the_networks_it_needs_are_from_scratch_and_each_named_once(experiment):
    networks = experiment.networks(Settings())
    assert len(set(networks)) == len(networks)
    assert all(network.from_scratch for network in networks)
    needed = {run.network for run in experiment.runs(Settings())} - {None}
    assert needed == set(networks)


def test_tables_show_every_run_and_what_the_papers_print(experiment, rows):
    tables = experiment.tables(rows)
    text = "\n".join(one.to_markdown() for one in tables)
    for table in tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
    for scheme in {row["scheme"] for row in rows if "scheme" in row}:
        assert re.search(rf"^\|.*\b{scheme}\b", text, re.MULTILINE)
    assert PRINTED.get(experiment.name, "") in text
    assert "nan" not in text


def test_figures_are_drawn_from_rows_alone(experiment, rows, tmp_path):
    for name, figure in experiment.figures(rows).items():
        figure.savefig(tmp_path / f"{name}.png")
        assert figure.get_supxlabel() or all(axes.get_xlabel() for axes in figure.axes)
        plt.close(figure)


def test_without_a_run_there_are_no_lines_and_no_figures(experiment):
    assert not any(table.rows for table in experiment.tables([]))
    assert experiment.figures([]) == {}


def seeds_by_mark(name, settings=None):
    """The seeds of each mark in an experiment, on the task itself."""
    seeds = {}
    for run in EXPERIMENTS[name].runs(settings or Settings()):
        if run.labels.get("case") != "other task" and "share" not in run.labels:
            seeds.setdefault(run.labels["scheme"], set()).add(run.labels["seed"])
    return seeds


@pytest.mark.parametrize("name", ["embedding", "fine-tuning", "distillation"])
def test_five_networks_of_each_kind_are_embedded(name):
    seeds = seeds_by_mark(name)
    assert all(seeds[scheme] == set(range(5)) for scheme in ("unmarked", *SCHEMES))


def test_the_papers_mark_and_the_default_are_pruned_in_every_network():
    seeds = seeds_by_mark("attack-pruning")
    assert seeds["random"] == seeds["default"] == set(range(5))
    assert seeds["direct"] == seeds["diff"] == {0}
    # By themselves, the others are.
    alone = seeds_by_mark("attack-pruning", Settings(marks=("direct",)))
    assert alone["direct"] == set(range(5))


def test_capacity_goes_past_what_a_mean_filter_can_hold():
    bits = {
        (run.labels["group"], run.labels["bits"])
        for run in EXPERIMENTS["capacity"].runs(Settings())
    }
    # M = 576 in group 2, and Cover's limit is 2 M.
    assert {(2, 64), (2, 1024), (2, 2048), (4, 2048)} <= bits


def test_no_such_experiment():
    with pytest.raises(ValueError, match=r"Expected one of embedding, .*all.*'embed'"):
        experiments_named("embed")
