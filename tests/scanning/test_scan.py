"""scan: one report on many files and many keys."""

import json

import numpy as np
import psutil
import pytest

import keras_wm
from keras_wm import Limits
from tests.conftest import fixed_key
from tests.files.servers import s3_store, serving
from tests.files.written import PATIENT, write_weights

QUICK = Limits(cpu_seconds=1, **PATIENT)


@pytest.fixture(scope="session")
def report(downloads):
    """The scan of the whole folder for both keys."""
    keys = [downloads.key, downloads.stranger]
    return keras_wm.scan(downloads.folder, keys, limits=QUICK)


def test_every_marked_file_is_found_with_its_key_and_kernel(downloads, report):
    assert [match.file for match in report.found] == list(downloads.marked)
    for match in report.found:
        assert match.key.commitment == downloads.key.commitment
        assert match.key.layer.startswith("wide/")
        assert (match.verdict, match.key.ber) == ("proven", 0.0)


def test_the_correction_counts_every_key_kernel_and_file(downloads, report):
    # A key of 64 bits fits the convolutions of 9 x 16 and 144 x 32 weights and the
    # 32 x 4 logits of the two marked files, and the noise of 60 x 40.
    assert report.tests == 2 * (2 * 3 + 1)
    alone = keras_wm.verify(downloads.marked[0], downloads.key)
    assert alone.tried == 3
    match = report.found[0]
    assert match.key.log10_p == pytest.approx(alone.log10_p - np.log10(3))
    assert match.log10_p == pytest.approx(match.key.log10_p + np.log10(14))
    assert "multiplied by 14" in report.correction
    assert "2 keys in 8 kernels of 4 files" in report.correction


def test_files_that_cannot_be_read_are_listed_with_their_errors(downloads, report):
    folder = downloads.folder
    errors = {result.file: (result.error, result.message) for result in report.unread}
    assert errors.keys() == {
        str(folder / name) for name in ("cut.keras", "endless.h5", "repacked.h5")
    }
    error, message = errors[str(folder / "endless.h5")]
    assert error == "UnsafeFileError"
    assert message.startswith("reading it takes more than Limits.cpu_seconds=1")
    assert errors[str(folder / "cut.keras")][0] == "ModelFileError"
    assert "filter 32000" in errors[str(folder / "repacked.h5")][1]


def test_other_files_of_a_folder_are_counted_and_not_reported_as_unread(report):
    assert report.others == 2
    assert report.files == 7


@pytest.mark.usefixtures("here")
def test_a_named_file_that_is_not_a_model_counts_as_unread(downloads):
    readme = downloads.folder / "README.md"
    report = keras_wm.scan([readme], downloads.key)
    assert [result.error for result in report.unread] == ["UnsupportedFileError"]
    assert report.others == 0


def test_the_number_of_workers_does_not_change_the_report(downloads, report):
    keys = [downloads.key, downloads.stranger]
    one = keras_wm.scan(downloads.folder, keys, limits=QUICK, workers=1)
    assert one.to_dict() == report.to_dict()


def test_the_report_can_be_written_as_json_and_as_text(downloads, report):
    again = json.loads(json.dumps(report.to_dict()))
    assert len(again["found"]) == 2
    assert again["files_unread"] == 3
    text = repr(report)
    assert f"{downloads.marked[0]}: Example Ltd, PROVEN, independent, p 10^-" in text
    assert "4 model files read, 3 could not be, 2 other files." in text


@pytest.mark.usefixtures("here")
def test_alpha_is_compared_with_the_corrected_p_value(downloads):
    # One file with one kernel: alpha is between its p-value and twice that.
    key = downloads.key
    paths = [downloads.folder / "b.weights.h5"]
    found = keras_wm.verify(paths[0], key)
    alpha = 10**found.log10_p * 1.5
    once = keras_wm.scan(paths, key, alpha=alpha)
    assert [match.log10_p for match in once.found] == [pytest.approx(found.log10_p)]
    twice = keras_wm.scan(paths, [key, downloads.stranger], alpha=alpha)
    assert key.commitment not in {match.key.commitment for match in twice.found}


def test_files_at_urls_are_scanned(downloads):
    with s3_store("models") as client, serving(downloads.folder) as server:
        for name, file in zip("ab", downloads.marked, strict=True):
            client.upload_file(file, "models", f"deep/{name}")
        web = f"{server.url}/deep/a.keras"
        report = keras_wm.scan(["s3://models", web], downloads.key)
    files = [match.file for match in report.found]
    assert files == [web, "s3://models/deep/a", "s3://models/deep/b"]
    assert report.unread == []


@pytest.mark.usefixtures("here")
def test_a_layer_narrows_the_search(downloads):
    report = keras_wm.scan(downloads.marked, downloads.key, layer="wide")
    # Each of the files has three kernels that could have been named.
    assert report.tests == 2 * 3
    assert len(report.found) == 2


@pytest.mark.usefixtures("here")
def test_a_file_without_the_layer_counts_as_unread(downloads):
    report = keras_wm.scan(downloads.marked[0], downloads.key, layer="other")
    (unread,) = report.unread
    assert unread.error == "LayerNotFoundError"
    assert "'wide'" in unread.message


@pytest.mark.usefixtures("here")
def test_a_key_given_twice_counts_once(downloads):
    report = keras_wm.scan(downloads.marked[0], [downloads.key, downloads.key])
    assert (report.keys, report.tests) == (1, 3)


@pytest.mark.usefixtures("here")
def test_an_explicit_key_is_searched_for_too(downloads, rng):
    matrix, message = rng.normal(size=(64, 144)), rng.integers(0, 2, 64)
    key = keras_wm.WatermarkKey.from_arrays(matrix, message)
    report = keras_wm.scan(downloads.marked[0], key, alpha=0.999999)
    assert report.tests == 1
    assert not report.found[0].key.certified


@pytest.mark.usefixtures("here")
def test_a_constant_or_infinite_kernel_is_never_a_match(tmp_path, key):
    broken = np.ones((60, 40), "float32")
    broken[3, 3] = np.nan
    for name, kernel in (("nan", broken), ("zeros", np.zeros((60, 40), "float32"))):
        write_weights(tmp_path / f"{name}.h5", kernel)
    report = keras_wm.scan(tmp_path, key, alpha=0.99)
    assert (report.found, report.tests, report.unread) == ([], 2, [])


@pytest.mark.usefixtures("here")
def test_a_search_that_would_take_hours_is_refused(downloads):
    limits = Limits(search_entries=1000)
    report = keras_wm.scan(downloads.marked[0], downloads.key, limits=limits)
    (unread,) = report.unread
    assert "Limits.search_entries=1,000. Name a layer" in unread.message


@pytest.mark.usefixtures("here")
def test_each_result_is_passed_to_the_callback(downloads):
    seen = []
    keras_wm.scan(downloads.marked, downloads.key, on_result=seen.append)
    assert sorted(result.file for result in seen) == sorted(downloads.marked)
    assert all(result.keys[0].ber == 0 for result in seen)


@pytest.mark.usefixtures("here")
def test_a_bar_is_shown_only_on_a_terminal(downloads, capsys, monkeypatch):
    keras_wm.scan(downloads.marked, downloads.key, progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    keras_wm.scan(downloads.marked, downloads.key, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "scanning" in shown.err
    assert "2/2" in shown.err


def test_an_interrupt_ends_the_scan_and_its_processes(downloads):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = psutil.Process().children(recursive=True)
    with pytest.raises(KeyboardInterrupt):
        keras_wm.scan(
            downloads.folder, downloads.key, limits=QUICK, on_result=interrupt
        )
    assert psutil.Process().children(recursive=True) == before


@pytest.mark.parametrize(
    ("keys", "error", "match"),
    [
        ([], ValueError, "at least one key"),
        (["owner.key"], TypeError, r"WatermarkKey\.load"),
        (5, TypeError, "not iterable"),
    ],
)
def test_keys_of_another_type_are_refused(keys, error, match):
    with pytest.raises(error, match=match):
        keras_wm.scan("nothing", keys)


def test_settings_out_of_range_are_refused(key):
    with pytest.raises(ValueError, match="workers=0"):
        keras_wm.scan("nothing", key, workers=0)
    with pytest.raises(ValueError, match="alpha=2"):
        keras_wm.scan("nothing", key, alpha=2)


def test_a_folder_without_files_gives_an_empty_report(tmp_path):
    report = keras_wm.scan(tmp_path, fixed_key())
    assert (report.files, report.tests, report.found) == (0, 0, [])
    assert "No mark was found." in repr(report)
