"""Every experiment: its runs, and the tables and plots that its records make."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from keras_wm.research.attacks import training
from keras_wm.research.experiments import EXPERIMENTS, Settings
from keras_wm.research.experiments.catalogue import SUITES, experiments_named
from keras_wm.research.experiments.run_records import Records
from keras_wm.research.experiments.runner import recorded_rows
from keras_wm.research.experiments.schemes import RECORDED
from keras_wm.research.experiments.studies import forging, papers_attacks
from keras_wm.research.hosts.wide_resnet import wide_resnet
from tests.research.experiments.conftest import made_pictures, run_eagerly

# The records that the notebooks show, and their settings.
FOLDER = Path(__file__).parents[3] / "notebooks" / "records"
# Families of attacks that are newer than the records are missing.
FAMILIES = (
    *("fine-tuning", "pruning", "quantization", "perturbation", "regularization"),
    *("overwriting", "adaptive", "distillation", "equivalence", "obfuscation"),
    *("fusion", "export", "overwriting every layer"),
)
STUDIES = {
    "all": (FOLDER / "digits.jsonl", Settings("digits")),
    "robustness": (
        FOLDER / "digits_robustness.jsonl",
        Settings("digits", marks=("random", "default"), families=FAMILIES),
    ),
}
SUITE_OF = {
    experiment.name: suite
    for suite, experiments in SUITES.items()
    for experiment in experiments
}
# Results of the papers that the tables show.
PUBLISHED = {
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


@pytest.fixture(scope="module")
def records():
    """The committed records, by suite."""
    return {suite: Records(path) for suite, (path, _) in STUDIES.items()}


@pytest.fixture(scope="module")
def rows(records):
    """The recorded rows of each experiment, by its name."""
    return {
        name: recorded_rows(EXPERIMENTS[name], STUDIES[suite][1], records[suite])
        for name, suite in SUITE_OF.items()
    }


@pytest.fixture(scope="module")
def tables(rows):
    return {name: EXPERIMENTS[name].tables(rows[name]) for name in EXPERIMENTS}


def test_labels_identify_a_run_after_they_went_through_json():
    for experiment in EXPERIMENTS.values():
        runs = list(experiment.runs(Settings()))
        texts = [json.dumps(run.labels, sort_keys=True) for run in runs]
        assert len(set(texts)) == len(texts)
        for run, text in zip(runs, texts, strict=True):
            assert json.loads(text) == run.labels
        last = experiment.run_with(Settings(), json.loads(texts[-1]))
        assert (last.labels, last.network) == (runs[-1].labels, runs[-1].network)


def test_labels_of_no_run_are_an_error():
    with pytest.raises(ValueError, match=r"a run of 'embedding'. Received: .*'none'"):
        EXPERIMENTS["embedding"].run_with(Settings(), {"scheme": "none", "seed": 0})


def test_every_mark_is_in_every_experiment_that_compares_marks():
    without_schemes = set()
    for name, experiment in EXPERIMENTS.items():
        schemes = {run.labels.get("scheme") for run in experiment.runs(Settings())}
        if schemes == {None}:
            without_schemes.add(name)
            continue
        # Capacity needs more bits than the two sparse marks have columns for, and
        # resistance tries the main marks only.
        few = name in ("capacity", "resistance")
        assert schemes >= set(RECORDED) - ({"direct", "diff"} if few else set())
    assert without_schemes == {"forging", "plain-host", "recipients", "several-layers"}


def test_runs_need_networks_that_are_trained_from_scratch():
    for experiment in EXPERIMENTS.values():
        networks = {run.network for run in experiment.runs(Settings())} - {None}
        assert all(network.from_scratch for network in networks)


def test_the_committed_records_hold_every_run(rows):
    for name, suite in SUITE_OF.items():
        settings = STUDIES[suite][1]
        assert len(rows[name]) == len(list(EXPERIMENTS[name].runs(settings)))


def test_tables_show_every_mark_and_the_results_of_the_papers(rows, tables):
    for name in EXPERIMENTS:
        text = "\n".join(table.to_markdown() for table in tables[name])
        for table in tables[name]:
            assert table.rows
            assert {len(row) for row in table.rows} == {len(table.columns)}
        for scheme in {row["scheme"] for row in rows[name] if "scheme" in row}:
            assert re.search(rf"^\|.*\b{scheme}\b", text, re.MULTILINE)
        assert PUBLISHED.get(name, "") in text
        assert "nan" not in text


def test_plots_are_drawn_from_rows_alone(rows):
    for name, experiment in EXPERIMENTS.items():
        for figure in experiment.figures(rows[name]).values():
            figure.savefig(io.BytesIO(), dpi=30)
            assert figure.get_supxlabel() or all(
                axes.get_xlabel() for axes in figure.axes
            )
            plt.close(figure)


def test_without_rows_tables_are_empty_and_there_are_no_plots():
    for experiment in EXPERIMENTS.values():
        assert not any(table.rows for table in experiment.tables([]))
        assert experiment.figures([]) == {}


class SameNetwork:
    """A network store that returns the same untrained network for every training."""

    def __init__(self):
        pictures = made_pictures()
        self.pictures = lambda task: pictures
        self._model = wide_resnet((8, 8, 1), 3, n=1, k=1)

    def network(self, training):
        history = {"test_error": [0.9, 0.25], "loss": [1.0], "ber": [0.5, 0.0]}
        return self._model, history if training.from_scratch else {}


def test_a_run_of_each_kind_measures_what_its_record_holds(records, monkeypatch):
    run_eagerly(monkeypatch)
    # Attackers train for one epoch and prune little, and forgers try few secrets.
    monkeypatch.setattr(training, "STEPS", 4)
    monkeypatch.setattr(papers_attacks, "SHARES", (0, 0.5))
    monkeypatch.setattr(forging, "TRIALS", 20)
    store = SameNetwork()
    for name, suite in SUITE_OF.items():
        settings = STUDIES[suite][1]
        small = replace(
            settings,
            epochs=1,
            # Only the first seed of this one records weights and outputs.
            seeds=2 if name == "embedding" else 1,
            k=1,
            marks=("random", "default"),
            # Outcomes of attacks are checked with the experiment `resistance`.
            families=(),
        )
        kinds = {}
        for run in EXPERIMENTS[name].runs(small):
            if row := records[suite].find(name, run.labels, settings.host):
                # The names of labels and measurements, and whether a layer is reset.
                kind = (*sorted(row), row.get("drawn", "none") == "none")
                kinds.setdefault(kind, (run, row))
        assert kinds
        for run, row in kinds.values():
            measured = json.loads(json.dumps(run.perform(store)))
            assert {*measured, *run.labels, "seconds"} == set(row)


def seeds_by_mark(name, settings=None):
    """Returns the seeds of each mark in an experiment, for the task itself."""
    seeds = {}
    for run in EXPERIMENTS[name].runs(settings or Settings()):
        if run.labels.get("case") != "other task" and "share" not in run.labels:
            seeds.setdefault(run.labels["scheme"], set()).add(run.labels["seed"])
    return seeds


def test_five_networks_of_each_kind_are_embedded():
    for name in ("embedding", "fine-tuning", "distillation"):
        seeds = seeds_by_mark(name)
        assert all(seeds[scheme] == set(range(5)) for scheme in ("unmarked", *RECORDED))


def test_the_papers_mark_and_the_default_are_pruned_in_every_network():
    seeds = seeds_by_mark("attack-pruning")
    assert seeds["random"] == seeds["default"] == set(range(5))
    assert seeds["direct"] == seeds["diff"] == {0}
    # If it is the only mark, another one is too.
    alone = seeds_by_mark("attack-pruning", Settings(marks=("direct",)))
    assert alone["direct"] == set(range(5))


def test_capacity_exceeds_the_limit_of_a_mean_filter():
    bits = {
        (run.labels["group"], run.labels["bits"])
        for run in EXPERIMENTS["capacity"].runs(Settings())
    }
    # M = 576 in group 2, and Cover's limit is 2 M.
    assert {(2, 64), (2, 1024), (2, 2048), (4, 2048)} <= bits


def test_an_unknown_experiment_is_an_error():
    with pytest.raises(ValueError, match=r"Expected one of embedding, .*all.*'embed'"):
        experiments_named("embed")
