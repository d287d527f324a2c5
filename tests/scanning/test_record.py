"""An interrupted scan resumes from its record, and gives the same report."""

import json
import subprocess
import sys

import pytest

import keras_wm
from keras_wm import Limits
from keras_wm.scanning.examiner import Examiner
from tests.conftest import fixed_key
from tests.files.written import write_weights

pytestmark = pytest.mark.usefixtures("here")


class StoppedError(Exception):
    """Stops a scan in the middle."""


@pytest.fixture
def models(tmp_path, rng):
    """A folder of twenty small models."""
    folder = tmp_path / "models"
    folder.mkdir()
    for index in range(20):
        write_weights(folder / f"{index:02}.h5", rng.normal(size=(40, 8)))
    return folder


def stop_after(count):
    left = iter(range(count - 1))

    def on_result(_):
        if next(left, None) is None:
            raise StoppedError

    return on_result


def lines_of(record):
    return [json.loads(line) for line in record.read_text().splitlines()]


def test_a_stopped_scan_resumes_to_the_same_report(models, tmp_path, key):
    record = tmp_path / "scan.jsonl"
    whole = keras_wm.scan(models, key, alpha=0.5)
    with pytest.raises(StoppedError):
        keras_wm.scan(models, key, alpha=0.5, record=record, on_result=stop_after(8))
    before = record.read_bytes()
    assert len(before.splitlines()) == 9
    again = keras_wm.scan(models, key, alpha=0.5, record=record)
    assert again.to_dict() == whole.to_dict()
    assert record.read_bytes().startswith(before)
    files = [line["file"] for line in lines_of(record)[1:]]
    assert sorted(files) == sorted(str(path) for path in models.iterdir())


def test_a_killed_scan_resumes_to_the_same_report(models, tmp_path, key):
    record, owner = tmp_path / "scan.jsonl", tmp_path / "owner.key"
    key.save(owner)
    whole = keras_wm.scan(models, key, alpha=0.5)
    command = [sys.executable, "-m", "keras_wm", "scan", models, "--key", owner]
    command += ["--workers", "1", "--record", record]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not record.exists() or len(record.read_bytes().splitlines()) < 4:
            assert process.poll() is None
        process.kill()
    assert keras_wm.scan(models, key, alpha=0.5, record=record).to_dict() == (
        whole.to_dict()
    )


def test_an_incomplete_line_is_written_again(models, tmp_path, key):
    record = tmp_path / "scan.jsonl"
    whole = keras_wm.scan(models, key, record=record)
    data = record.read_bytes()
    for cut in (3, len(data) // 2, len(data) - 1):
        record.write_bytes(data[:cut])
        again = keras_wm.scan(models, key, record=record)
        assert again.to_dict() == whole.to_dict()
        assert len(lines_of(record)) == 21


def test_a_finished_scan_reads_nothing_again(models, tmp_path, key, monkeypatch):
    record = tmp_path / "scan.jsonl"
    whole = keras_wm.scan(models, key, record=record)

    def examine(*_):
        raise AssertionError("a file was read")

    monkeypatch.setattr(Examiner, "examine", examine)
    again = keras_wm.scan(models, key, record=record)
    assert again.to_dict() == whole.to_dict()


def test_a_changed_file_is_read_again(models, tmp_path, key, rng):
    record, changed = tmp_path / "scan.jsonl", models / "07.h5"
    keras_wm.scan(models, key, record=record)
    write_weights(changed, rng.normal(size=(50, 8)))
    again = keras_wm.scan(models, key, record=record)
    assert again.to_dict() == keras_wm.scan(models, key).to_dict()
    assert [line["file"] for line in lines_of(record)[21:]] == [str(changed)]


def test_new_files_join_a_scan_and_the_correction(models, tmp_path, key, rng):
    record = tmp_path / "scan.jsonl"
    assert keras_wm.scan(models, key, record=record).tests == 20
    write_weights(models / "new.h5", rng.normal(size=(40, 8)))
    assert keras_wm.scan(models, key, record=record).tests == 21


def test_recorded_results_of_missing_files_do_not_count(models, tmp_path, key):
    record = tmp_path / "scan.jsonl"
    keras_wm.scan(models, key, record=record)
    (models / "03.h5").unlink()
    assert keras_wm.scan(models, key, record=record).files == 19


@pytest.mark.parametrize("change", ["key", "layer", "limits"])
def test_the_record_of_another_scan_is_refused(models, tmp_path, key, change):
    record = tmp_path / "scan.jsonl"
    keras_wm.scan(models, key, record=record)
    before = record.read_bytes()
    other = {
        "key": {"keys": fixed_key(32, secret=b"\x05" * 32)},
        "layer": {"keys": key, "layer": "c1"},
        "limits": {"keys": key, "limits": Limits(depth=5)},
    }
    with pytest.raises(ValueError, match=rf"other settings \({change}"):
        keras_wm.scan(models, record=record, **other[change])
    assert record.read_bytes() == before


@pytest.mark.parametrize("content", ["hello\n", "{}\n", "[1]\n", '{"a": 1}\n\n'])
def test_a_file_that_is_not_a_record_is_left_unchanged(models, tmp_path, key, content):
    record = tmp_path / "notes.txt"
    record.write_text(content)
    with pytest.raises(ValueError, match=r"Line 1 of .*notes"):
        keras_wm.scan(models, key, record=record)
    assert record.read_text() == content


def test_a_record_holds_no_secret(models, tmp_path, key):
    record = tmp_path / "scan.jsonl"
    keras_wm.scan(models, key, record=record)
    text = record.read_text()
    assert key.commitment in text
    assert key._source.secret.reveal() not in text
