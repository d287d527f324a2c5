"""A study from its first network to its last picture, and what it goes on from."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from keras_wm.research.experiments import EXPERIMENTS, Settings, run_experiment, worker
from keras_wm.research.experiments.run_records import Records
from keras_wm.research.experiments.runner import RECORDS, recorded_rows
from tests.research.experiments.conftest import BITS, save_made_arrays

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
    """A finished study: its settings, folder, tables and what was printed."""
    folder = tmp_path_factory.mktemp("study")
    data = save_made_arrays(folder / "made.npz")
    settings = Settings(
        str(data), epochs=1, seeds=1, k=1, batch=16, bits=BITS, marks=("random",)
    )
    console = quiet()
    tables = run_experiment("embedding", settings, folder / "out", console)
    return settings, folder / "out", tables, console.file.getvalue()


def test_every_run_is_a_line_of_json_with_settings_seed_versions_figures(study):
    settings, folder, _, _ = study
    records = records_of(folder)
    assert [record["labels"] for record in records] == RUNS
    for record in records:
        assert record["host"] == settings.host
        assert 0 <= record["figures"]["ber"] <= 1
        assert record["versions"]["keras"]
    assert str(folder.parent) not in (folder / RECORDS).read_text()


def test_tables_are_printed_returned_and_written_and_figures_drawn(study):
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


def test_rows_are_those_of_the_runs_that_are_asked_for_in_their_order(study, tmp_path):
    settings, folder, _, _ = study
    lines = (folder / RECORDS).read_text().splitlines(keepends=True)
    (tmp_path / RECORDS).write_text("".join(reversed(lines)))
    records = Records(tmp_path / RECORDS)
    embedding = EXPERIMENTS["embedding"]

    def labels(asked):
        rows = recorded_rows(embedding, asked, records)
        return [{"scheme": row["scheme"], "seed": row["seed"]} for row in rows]

    assert labels(settings) == RUNS
    # More than there are, and fewer.
    assert labels(replace(settings, seeds=2)) == RUNS
    assert labels(replace(settings, marks=("default",))) == [RUNS[0], RUNS[2]]
    assert labels(replace(settings, epochs=2)) == []


def test_a_finished_study_is_drawn_again_from_its_records_alone(study, tmp_path):
    settings, folder, tables, _ = study
    (tmp_path / RECORDS).write_bytes((folder / RECORDS).read_bytes())
    # Neither data nor networks are at hand.
    elsewhere = replace(settings, data=str(tmp_path / "made.npz"))
    assert run_experiment("embedding", elsewhere, tmp_path, quiet()) == tables
    assert (tmp_path / "embedding-curves.png").exists()
    assert not (tmp_path / "networks").exists()


def test_after_a_kill_only_what_is_missing_is_done(study, tmp_path, monkeypatch):
    settings, folder, _, _ = study
    first, second, third = (folder / RECORDS).read_bytes().splitlines(keepends=True)
    (tmp_path / RECORDS).write_bytes(first + third + second[:40])
    done = []
    answer = worker.Worker.answer

    def watched(self, question):
        done.append({k: v for k, v in question.items() if k != "experiment"})
        return answer(self, question)

    monkeypatch.setattr(worker.Worker, "answer", watched)
    run_experiment("embedding", settings, tmp_path, quiet())
    assert done == [{"network": 1}, {"run": 1}]
    labels = [record["labels"] for record in records_of(tmp_path)]
    assert labels == [RUNS[0], RUNS[2], RUNS[1]]


def test_data_that_cannot_be_read_is_told_before_anything_is_done(settings, tmp_path):
    wrong = replace(settings, data=str(tmp_path / "none.npz"))
    with pytest.raises(ValueError, match=r"Expected 'digits', .*none\.npz"):
        run_experiment("embedding", wrong, tmp_path / "out", quiet(), workers=2)
    assert not (tmp_path / "out" / "networks").exists()


def test_several_processes_do_what_one_does(study, tmp_path):
    settings, *_ = study
    command = [sys.executable, "-m", "keras_wm", "experiment", "embedding"]
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
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    assert "Embedding from scratch" in done.stdout
    labels = [record["labels"] for record in records_of(tmp_path)]
    assert sorted(labels, key=str) == sorted(RUNS, key=str)


def test_a_run_that_fails_in_another_process_says_why(settings, tmp_path):
    # There are pictures when the study begins, but not square, which turning needs.
    x, y = np.zeros((8, 8, 6, 1), np.uint8), np.arange(8) % 3
    np.savez(tmp_path / "made.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    narrow = replace(settings, data=str(tmp_path / "made.npz"), epochs=1)
    with pytest.raises(RuntimeError, match="Expected square pictures"):
        run_experiment("fine-tuning", narrow, tmp_path, quiet(), workers=2)
