"""The requirements report as a page, and the command that writes it."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest

from keras_wm.research.evaluation import write_report
from keras_wm.research.evaluation.html_report import render_html, requirements
from tests.command_line import run


@pytest.fixture(scope="module")
def html(evaluation):
    return render_html(evaluation)


def test_the_page_needs_no_other_file(html):
    assert not re.search(r"\b(src|href)\s*=\s*[\"'](?!#)", html)
    assert "@import" not in html
    assert "<svg" in html
    assert "<script" not in html


def test_the_page_has_a_result_for_every_requirement_of_the_papers(evaluation, html):
    table = list(requirements(evaluation))
    names = [requirement.name for requirement in table]
    assert names == ["Fidelity", "Robustness", "Capacity", "Security", "Efficiency"]
    for requirement in table:
        assert requirement.result
        assert f"<strong>{requirement.name}</strong>" in html


def test_the_table_lists_every_attack_with_its_verdict(evaluation, html):
    for summary in evaluation.attack_summaries:
        assert summary.title in html.replace("&#39;", "'")
    assert "does not apply" in html
    assert "follows the method of ieee 3304" in html.lower()


def test_the_owner_of_a_key_is_escaped(evaluation):
    hostile = dataclasses.replace(
        evaluation,
        verification=dataclasses.replace(
            evaluation.verification, owner="<script>alert(1)</script>"
        ),
    )
    html = render_html(hostile)
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_without_any_applicable_attack_there_is_no_figure(evaluation):
    refused = [outcome for outcome in evaluation.outcomes if outcome.refused]
    assert refused
    assert "<svg" not in render_html(dataclasses.replace(evaluation, outcomes=refused))


def test_both_files_are_written(evaluation, html, tmp_path):
    record, written = write_report(evaluation, tmp_path / "new")
    expected = json.loads(json.dumps(evaluation.to_dict()))
    assert json.loads(record.read_text("utf-8")) == expected
    assert written.read_text("utf-8").count("<tr>") == html.count("<tr>")


def test_without_jinja2_the_extra_is_named(evaluation, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"keras-wm\[report\]"):
        render_html(evaluation)


def test_the_command_line_writes_a_report(marked, pictures, tmp_path):
    marked.key.save(tmp_path / "owner.key")
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = {name: getattr(pictures, name) for name in names}
    np.savez(tmp_path / "noise.npz", **arrays)
    result = run(
        *("evaluate", marked.files[".keras"], "--key", tmp_path / "owner.key"),
        *("--data", tmp_path / "noise.npz", "--families", "quantization"),
        *("--strengths", 2, "--out", tmp_path / "out"),
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"Robustness: 0 of [12] attacks that add", result.stdout)
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text("utf-8"))
    assert {outcome["attack"] for outcome in report["outcomes"]} == {
        "quantization",
        "clustering",
    }
    assert (tmp_path / "out" / "evaluation.html").exists()
