"""Studies from their first network to their plots, and how they resume."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from keras_wm.cli import app
from keras_wm.research.experiments import EXPERIMENTS, Settings, run_experiment, worker
from keras_wm.research.experiments.run_records import Records
from keras_wm.research.experiments.runner import RECORDS, recorded_rows
from tests.research.experiments.conftest import BITS, run_eagerly, save_made_arrays

RUNS = [
    {"scheme": "unmarked", "seed": 0},
    {"scheme": "random", "seed": 0},
    {"scheme": "before training", "seed": 0},
]


def quiet():
    return Console(file=io.StringIO(), width=100)


def records_of(folder):
    lines = (folder / RECORDS).read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study: its settings, folder, tables and printed text."""
    folder = tmp_path_factory.mktemp("study")
    data = save_made_arrays(folder / "made.npz")
    settings = Settings(
        str(data), epochs=1, seeds=1, k=1, batch=40, bits=BITS, marks=("random",)
    )
    console = quiet()
    with pytest.MonkeyPatch.context() as patch:
        run_eagerly(patch)
        tables = run_experiment("embedding", settings, folder / "out", console)
    return settings, folder / "out", tables, console.file.getvalue()


def test_every_run_is_a_json_line_with_its_settings_seed_and_versions(study):
    settings, folder, _, _ = study
    records = records_of(folder)
    assert [record["labels"] for record in records] == RUNS
    for record in records:
        assert record["host"] == settings.host
        assert 0 <= record["figures"]["ber"] <= 1
        assert record["versions"]["keras"]
    assert str(folder.parent) not in (folder / RECORDS).read_text()


def test_tables_are_printed_returned_and_written_with_plots(study):
    _, folder, tables, printed = study
    text = (folder / "embedding.md").read_text()
    for table in tables:
        assert table.to_markdown() in text
        assert "made, WRN-10-1, 1 epochs" in table.title
    assert "7.97/4.8e-4/-" in text
    assert "7.97/4.8e-4/-" in printed
    for figure in ("outputs", "curves", "weights"):
        png = (folder / f"embedding-{figure}.png").read_bytes()
        assert png.startswith(b"\x89PNG")


def test_rows_are_those_of_the_requested_runs_in_their_order(study, tmp_path):
    settings, folder, _, _ = study
    lines = (folder / RECORDS).read_text().splitlines(keepends=True)
    (tmp_path / RECORDS).write_text("".join(reversed(lines)))
    records = Records(tmp_path / RECORDS)
    embedding = EXPERIMENTS["embedding"]

    def labels(requested):
        rows = recorded_rows(embedding, requested, records)
        return [{"scheme": row["scheme"], "seed": row["seed"]} for row in rows]

    assert labels(settings) == RUNS
    # More runs than there are, and fewer.
    assert labels(replace(settings, seeds=2)) == RUNS
    assert labels(replace(settings, marks=("default",))) == [RUNS[0], RUNS[2]]
    assert labels(replace(settings, epochs=2)) == []


def test_a_finished_study_is_shown_from_its_records_alone(study, tmp_path):
    settings, folder, tables, _ = study
    (tmp_path / RECORDS).write_bytes((folder / RECORDS).read_bytes())
    # Neither the data nor the networks are there.
    elsewhere = replace(settings, data=str(tmp_path / "made.npz"))
    assert run_experiment("embedding", elsewhere, tmp_path, quiet()) == tables
    assert (tmp_path / "embedding-curves.png").exists()
    assert not (tmp_path / "networks").exists()


@pytest.mark.usefixtures("eager")
def test_after_a_kill_only_the_missing_run_is_done(study, tmp_path, monkeypatch):
    settings, folder, _, _ = study
    first, second, third = (folder / RECORDS).read_bytes().splitlines(keepends=True)
    (tmp_path / RECORDS).write_bytes(first + third + second[:40])
    done = []
    do_request = worker.do_request

    def watched(request, store):
        done.append(request)
        return do_request(request, store)

    monkeypatch.setattr(worker, "do_request", watched)
    run_experiment("embedding", settings, tmp_path, quiet())
    assert done == [
        {"experiment": "embedding", "task": task, "labels": RUNS[1]}
        for task in (worker.TRAIN, worker.RUN)
    ]
    labels = [record["labels"] for record in records_of(tmp_path)]
    assert labels == [RUNS[0], RUNS[2], RUNS[1]]


def test_unreadable_data_is_an_error_before_any_run(settings, tmp_path):
    wrong = replace(settings, data=str(tmp_path / "none.npz"))
    with pytest.raises(ValueError, match=r"Expected 'digits', .*none\.npz"):
        run_experiment("embedding", wrong, tmp_path / "out", quiet(), workers=2)
    assert not (tmp_path / "out" / "networks").exists()


def test_several_processes_do_the_same_runs(study, tmp_path):
    settings, *_ = study
    options = {
        "data": settings.data,
        "epochs": 1,
        "seeds": 1,
        "k": 1,
        "bits": settings.bits,
        "marks": "random",
        "workers": 2,
        "out": tmp_path,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    result = CliRunner().invoke(app, ["experiment", "embedding", *arguments])
    assert result.exit_code == 0, result.output
    assert "Embedding from scratch" in result.output
    labels = [record["labels"] for record in records_of(tmp_path)]
    assert sorted(labels, key=str) == sorted(RUNS, key=str)


def test_an_error_in_another_process_is_reported(settings, tmp_path):
    request = {"experiment": "embedding", "task": worker.RUN, "labels": {"seed": -1}}
    replies = worker.do_all([request], settings, tmp_path, workers=2)
    with pytest.raises(RuntimeError, match=r"'labels': .* failed:\n(?s:.)*ValueError"):
        list(replies)
