"""The study behind the notebook: it goes on after a stop, and says what it was."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from keras_wm.research.experiments.studies.slmc import FAST, Study, run_study

SILENT = Console(quiet=True)
TINY = replace(FAST, size=2, linear_shells=(1, 2), sizes=(2,), seeds=0)


def test_a_study_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "study.jsonl"
    found = run_study(TINY, path, SILENT)
    assert list(found) == ["linear, beta 5", "cost, size 2"]
    assert found["linear, beta 5"]["2"]["acceptance"][0] > 0.5
    header, _, cost = path.read_text().splitlines()
    cost = json.dumps(json.loads(cost) | {"result": "kept"})
    path.write_text(f"{header}\n{cost}\n")
    again = run_study(TINY, path, SILENT)
    assert again["cost, size 2"] == "kept"
    # The same seeds give the same figures.
    assert again["linear, beta 5"] == found["linear, beta 5"]


@pytest.mark.parametrize("content", ["[]\n", "{}\n", '{"of": 1'])
def test_a_file_that_holds_no_study_is_refused_and_kept(content, tmp_path):
    path = tmp_path / "study.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"Line 1 of .*study.jsonl' is damaged or not"):
        run_study(TINY, path, SILENT)
    assert path.read_text() == content


def test_a_missing_folder_is_told_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        run_study(Study(), tmp_path / "missing" / "study.jsonl", SILENT)


def test_the_records_of_another_study_are_refused_and_kept(tmp_path):
    path = tmp_path / "study.jsonl"
    run_study(replace(TINY, betas=()), path, SILENT)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match=r"betas: expected \[5.0\], received"):
        run_study(TINY, path, SILENT)
    assert path.read_bytes() == kept


def test_the_committed_records_are_complete(tmp_path):
    committed = Path(__file__).parents[4] / "notebooks" / "records" / "slmc.jsonl"
    path = tmp_path / "slmc.jsonl"
    shutil.copy(committed, path)
    assert set(run_study(Study(), path, SILENT)) == {
        name for name, _ in Study().parts()
    }
    assert path.read_bytes() == committed.read_bytes()
