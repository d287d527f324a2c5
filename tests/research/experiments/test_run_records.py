"""The records: what a study goes on from, and what its tables are made of."""

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


def test_a_finished_run_is_found_again_by_whoever_opens_the_file(path):
    add(Records(path))
    found = Records(path).find("embedding", dict(reversed(LABELS.items())), HOST)
    assert found == {**LABELS, "ber": 0.0, "seconds": 1.3}


@pytest.mark.parametrize(
    "experiment, labels, host",
    [
        ("capacity", LABELS, HOST),
        ("embedding", LABELS | {"seed": 1}, HOST),
        ("embedding", LABELS, HOST | {"epochs": 3}),
    ],
)
def test_another_run_is_not_taken_for_it(path, experiment, labels, host):
    records = Records(path)
    add(records)
    assert records.find(experiment, labels, host) is None


def test_a_record_says_with_what_it_was_made(path):
    add(Records(path))
    versions = json.loads(path.read_text())["versions"]
    assert set(versions) == {"keras_wm", "keras", "backend", "python"}
    assert all(versions.values())


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_what_a_killed_study_left_of_a_line_is_done_again(path, cut):
    records = Records(path)
    add(records)
    whole = path.read_bytes()
    add(records, LABELS | {"seed": 1})
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    records = Records(path)
    second = LABELS | {"seed": 1}
    assert records.find("embedding", second, HOST) is None
    add(records, second, ber=0.5)
    found = [Records(path).find("embedding", one, HOST) for one in (LABELS, second)]
    assert [row["ber"] for row in found] == [0.0, 0.5]


@pytest.mark.parametrize("text", ["no JSON\n", "{}\n", "[1]\n", '"text"\n', "\xff\n"])
def test_a_file_of_something_else_is_refused_and_left_alone(path, text):
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"Line 1 of .* is damaged or not a result"):
        Records(path)
    assert path.read_text(encoding="latin-1") == text


def test_the_committed_records_can_be_read():
    folder = Path(__file__).parents[3] / "notebooks" / "records"
    paths = sorted(set(folder.glob("*.jsonl")) - {folder / "slmc.jsonl"})
    assert len(paths) == 4
    for path in paths:
        line = json.loads(path.read_text().splitlines()[0])
        row = Records(path).find(line["experiment"], line["labels"], line["host"])
        assert row["seconds"] > 0
