"""The records of finished runs."""

import json
from pathlib import Path

import pytest

from keras_wm.research.experiments.run_records import Records

HOST = {"data": "made", "epochs": 2}
LABELS = {"scheme": "random", "seed": 0, "strength": 0.01}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records.jsonl"


def add(records, labels=LABELS, host=HOST, ber=0.0):
    records.add("embedding", labels, host, {"ber": ber}, seconds=1.26)


def test_a_finished_run_is_found_when_the_file_is_opened_again(path):
    add(Records(path))
    row = Records(path).find("embedding", dict(reversed(LABELS.items())), HOST)
    assert row == {**LABELS, "ber": 0.0, "seconds": 1.3}


@pytest.mark.parametrize(
    "experiment, labels, host",
    [
        ("capacity", LABELS, HOST),
        ("embedding", LABELS | {"seed": 1}, HOST),
        ("embedding", LABELS, HOST | {"epochs": 3}),
    ],
)
def test_another_run_is_not_found_in_its_place(path, experiment, labels, host):
    records = Records(path)
    add(records)
    assert records.find(experiment, labels, host) is None


def test_a_record_holds_the_versions_that_it_was_made_with(path):
    add(Records(path))
    versions = json.loads(path.read_text())["versions"]
    assert set(versions) == {"keras_wm", "keras", "backend", "python"}
    assert all(versions.values())


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_run_with_an_incomplete_line_is_done_again(path, cut):
    records = Records(path)
    add(records)
    whole = path.read_bytes()
    add(records, LABELS | {"seed": 1})
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    records = Records(path)
    second = LABELS | {"seed": 1}
    assert records.find("embedding", second, HOST) is None
    add(records, second, ber=0.5)
    rows = [
        Records(path).find("embedding", labels, HOST) for labels in (LABELS, second)
    ]
    assert [row["ber"] for row in rows] == [0.0, 0.5]


@pytest.mark.parametrize("text", ["text\n", "{}\n", "[1]\n", '"text"\n', "\xff\n"])
def test_a_file_of_something_else_is_an_error_and_left_unchanged(path, text):
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"Line 1 of .* is damaged or not a result"):
        Records(path)
    assert path.read_text(encoding="latin-1") == text


def test_the_committed_records_can_be_read():
    folder = Path(__file__).parents[3] / "notebooks" / "records"
    paths = sorted(set(folder.glob("*.jsonl")) - {folder / "slmc.jsonl"})
    assert len(paths) == 5
    for path in paths:
        line = json.loads(path.read_text().splitlines()[0])
        row = Records(path).find(line["experiment"], line["labels"], line["host"])
        assert row["seconds"] > 0
