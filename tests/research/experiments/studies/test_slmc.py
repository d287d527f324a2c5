"""The study behind the notebook resumes from its records, and from no others."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from keras_wm.research.experiments.studies.slmc import FAST, Study, run_study

SILENT = Console(quiet=True)
TINY = replace(FAST, size=2, linear_shells=(1, 2), sizes=(2,), seeds=0)


def test_an_interrupted_study_resumes(tmp_path):
    path = tmp_path / "study.jsonl"
    results = run_study(TINY, path, SILENT)
    assert list(results) == ["linear, beta 5", "cost, size 2"]
    assert results["linear, beta 5"]["2"]["acceptance"][0] > 0.5
    header, _, cost = path.read_text().splitlines()
    cost = json.dumps(json.loads(cost) | {"result": "stored"})
    path.write_text(f"{header}\n{cost}\n")
    again = run_study(TINY, path, SILENT)
    assert again["cost, size 2"] == "stored"
    # The same seeds give the same results.
    assert again["linear, beta 5"] == results["linear, beta 5"]


@pytest.mark.parametrize("content", ["[]\n", "{}\n", '{"of": 1'])
def test_a_file_without_results_raises_an_error_and_is_kept(content, tmp_path):
    path = tmp_path / "study.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"Line 1 of .*study.jsonl' is damaged or not"):
        run_study(TINY, path, SILENT)
    assert path.read_text() == content


def test_a_missing_folder_raises_an_error_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        run_study(Study(), tmp_path / "missing" / "study.jsonl", SILENT)


def test_the_records_of_another_study_raise_an_error_and_are_kept(tmp_path):
    path = tmp_path / "study.jsonl"
    run_study(replace(TINY, betas=()), path, SILENT)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"betas: expected \[5.0\], received"):
        run_study(TINY, path, SILENT)
    assert path.read_bytes() == before


def test_the_committed_records_are_complete(tmp_path):
    committed = Path(__file__).parents[4] / "notebooks" / "records" / "slmc.jsonl"
    path = tmp_path / "slmc.jsonl"
    shutil.copy(committed, path)
    assert set(run_study(Study(), path, SILENT)) == {
        name for name, _ in Study().parts()
    }
    assert path.read_bytes() == committed.read_bytes()
