"""The store of results from which scans, experiments and studies resume."""

import json

import pytest

from keras_wm.utils.records import RecordFile

HEADER = {"format": 1, "layer": None, "limits": {"depth": 3}, "sizes": (1, 2)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


def opened(path, header=HEADER):
    return RecordFile(path, lambda values: values["number"], header)


@pytest.mark.parametrize("header", [HEADER, None])
def test_results_are_read_again_in_their_order(path, header):
    records = opened(path, header)
    for number in range(3):
        records.append({"number": number})
    assert opened(path, header).results == [0, 1, 2]
    first = json.loads(path.read_text().splitlines()[0])
    assert ("format" in first) == (header is not None)


@pytest.mark.parametrize("header", [HEADER, None])
def test_an_incomplete_last_line_is_overwritten(path, header):
    records = opened(path, header)
    records.append({"number": 0})
    records.append({"number": 1})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        records = opened(path, header)
        complete = whole[:size].count(b"\n") - (header is not None)
        assert records.results == list(range(max(complete, 0)))
        for number in range(len(records.results), 2):
            records.append({"number": number})
        assert path.read_bytes() == whole


def test_a_line_that_could_not_be_written_does_not_spoil_the_next(path):
    records = opened(path)
    with path.open("ab") as file:
        file.write(b'{"numb')
    records.append({"number": 1})
    assert opened(path).results == [1]


@pytest.mark.parametrize("header", [HEADER, None])
@pytest.mark.parametrize(
    "line", [b"text\n", b"text", b"[1]\n", b'"format"\n', b"{}\n", b"\xff\n"]
)
def test_another_file_is_left_unchanged(path, header, line):
    path.write_bytes(line)
    with pytest.raises(ValueError, match=r"Line 1 of '.*results.jsonl' is damaged or"):
        opened(path, header)
    assert path.read_bytes() == line


@pytest.mark.parametrize("line", [b"text\n", b"[1]\n", b"{}\n", b"\n", b"\xff\n"])
def test_a_damaged_line_is_named_with_the_remedy(path, line):
    opened(path).append({"number": 0})
    damaged = path.read_bytes() + line
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"Line 3 of '.*results.jsonl' .*delete that"):
        opened(path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"layer": "c1"}, 'layer: expected "c1", received null'),
        ({"limits": {"depth": 5}}, "limits.depth: expected 5, received 3"),
        ({"sizes": [1]}, "sizes: expected [1], received [1, 2]"),
        ({"seed": 0}, "seed: expected 0, received null"),
        ({"format": 2}, "format: expected 2, received 1"),
    ],
)
def test_results_of_other_settings_are_refused_with_the_difference(
    path, change, difference
):
    opened(path).append({"number": 0})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="holds results of other settings") as error:
        opened(path, HEADER | change)
    assert f"({difference})" in str(error.value)
    assert path.read_bytes() == before


def test_a_missing_folder_is_reported_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        opened(tmp_path / "missing" / "results.jsonl")
