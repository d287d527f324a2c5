"""Every example in examples/ publishes a file in which its mark is proven."""

import importlib.util
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
README = FOLDER / "README.md"


def load_runner():
    """Returns examples/run.py as a module."""
    spec = importlib.util.spec_from_file_location("run_examples", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUNNER = load_runner()
# Largest difference between the marked network and its twin. Two trainings of the same
# unmarked network with other seeds differ by as much: the test sets are small.
ACCURACY_TOLERANCE = 0.05
# Largest ratio for a figure that is better when it is smaller.
ERROR_RATIO = 1.15


# Each example is a process of its own that trains two networks.
@pytest.mark.study
@pytest.mark.parametrize("name", RUNNER.EXAMPLES)
def test_an_example_publishes_a_file_with_its_mark_and_keeps_its_accuracy(
    name, tmp_path
):
    summary = RUNNER.run(name, tmp_path)
    assert summary["verdict"] == "proven"
    assert summary["ber"] == 0
    assert summary["twin_verdict"] == "not found"
    if summary["metric"] == "accuracy":
        assert summary["marked"] >= summary["unmarked"] - ACCURACY_TOLERANCE
    else:
        assert summary["marked"] <= summary["unmarked"] * ERROR_RATIO


def test_the_readme_explains_every_example():
    explained = re.findall(r"^\| `(\w+)\.py`", README.read_text("utf-8"), re.MULTILINE)
    assert sorted(explained) == RUNNER.EXAMPLES


@pytest.mark.parametrize("name", RUNNER.EXAMPLES)
def test_an_example_adds_the_mark_in_a_few_of_its_lines(name):
    lines, of_keras_wm = RUNNER.count_lines(name)
    # Import, mark, callback, publish and verify; the penalty in an own training step.
    assert 5 <= of_keras_wm <= 6
    assert lines <= 40


def test_lines_are_counted_without_documentation(tmp_path, monkeypatch):
    source = (
        '"""About keras_wm."""\n\nimport keras_wm  # keras_wm\n\nx = [\n    1,\n]\n'
    )
    (tmp_path / "it.py").write_text(source)
    monkeypatch.setattr(RUNNER, "FOLDER", tmp_path)
    assert RUNNER.count_lines("it") == (4, 1)
