"""The study behind the notebook: it goes on after a stop, and says what it was."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from keras_wm.research.experiments.studies.slmc import FAST, Study, run_study

SILENT = Console(quiet=True)
TINY = replace(FAST, size=2, linear_shells=(1, 2), sizes=(2,), seeds=0)


def test_a_study_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "study.json"
    found = run_study(TINY, path, SILENT)
    assert list(found) == ["linear, beta 5", "cost, size 2"]
    assert found["linear, beta 5"]["2"]["acceptance"][0] > 0.5
    kept = json.loads(path.read_text())
    kept["found"]["cost, size 2"] = "kept"
    del kept["found"]["linear, beta 5"]
    path.write_text(json.dumps(kept))
    again = run_study(TINY, path, SILENT)
    assert again["cost, size 2"] == "kept"
    # The same seeds give the same figures.
    assert again["linear, beta 5"] == found["linear, beta 5"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"of": 1', ""])
def test_a_file_that_holds_no_study_is_refused_and_kept(content, tmp_path):
    path = tmp_path / "study.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"study.json' holds no results to go on with"):
        run_study(TINY, path, SILENT)
    assert path.read_text() == content


def test_a_missing_folder_is_told_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        run_study(Study(), tmp_path / "missing" / "study.json", SILENT)


def test_the_records_of_another_study_are_refused_and_kept(tmp_path):
    path = tmp_path / "study.json"
    run_study(replace(TINY, betas=()), path, SILENT)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="with other settings"):
        run_study(TINY, path, SILENT)
    assert path.read_bytes() == kept
