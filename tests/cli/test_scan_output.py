"""The command scan: output, exit status and errors."""

import json
import signal
import subprocess
import sys

import psutil
import pytest

from tests.command_line import PATIENT, assert_fails, run

# One process reads all files, because starting more takes longer.
ONE = ("--workers", 1)
QUICK = (*ONE, "--limit", "cpu_seconds=1", *PATIENT)


@pytest.fixture
def keyfile(downloads, tmp_path):
    path = tmp_path / "owner.key"
    downloads.key.save(path)
    return path


def test_a_scan_prints_a_table_and_exits_with_0_if_a_mark_is_found(downloads, keyfile):
    result = run("scan", downloads.folder, "--key", keyfile, *QUICK, COLUMNS="250")
    assert result.returncode == 0
    assert result.stderr == ""
    rows = [line for line in result.stdout.splitlines() if "PROVEN" in line]
    assert len(rows) == 2
    for row, file in zip(rows, downloads.marked, strict=True):
        assert file in row
        assert "0/64" in row
    assert "endless.h5" in result.stdout
    assert "could not be read: 2 UnsafeFileError, 1 ModelFileError" in result.stdout
    assert "other files, not models: 2" in result.stdout
    assert "multiplied by 7, the number of tests" in result.stdout


def test_json_has_a_line_for_each_file_and_a_summary(downloads, keyfile):
    result = run("scan", downloads.folder, "--key", keyfile, "--json", *QUICK)
    assert result.returncode == 0
    header, *files, summary = map(json.loads, result.stdout.splitlines())
    assert header["keys"][0]["commitment"] == downloads.key.commitment
    assert len(files) == 9
    assert {file["file"] for file in files if file["keys"]} >= set(downloads.marked)
    assert [match["file"] for match in summary["summary"]["found"]] == list(
        downloads.marked
    )


def test_a_scan_exits_with_1_if_all_files_are_read_without_a_match(downloads, keyfile):
    result = run("scan", downloads.folder / "c.keras", "--key", keyfile, *ONE)
    assert result.returncode == 1
    assert "No mark was found." in result.stdout


def test_a_scan_exits_with_2_if_a_file_is_unread_without_a_match(downloads, keyfile):
    files = [downloads.folder / "c.keras", downloads.folder / "cut.keras", "gone.h5"]
    result = run("scan", *files, "--key", keyfile, *ONE)
    assert result.returncode == 2
    assert "gone.h5" in result.stdout
    assert "could not be read: 2 ModelFileError" in result.stdout


def test_sources_come_from_a_list_and_keys_can_be_several(downloads, keyfile, tmp_path):
    other = tmp_path / "other.key"
    downloads.stranger.save(other)
    (tmp_path / "list.txt").write_text("\n".join(downloads.marked) + "\n\n")
    arguments = ["scan", "--list", tmp_path / "list.txt", "--key", other]
    result = run(*arguments, "--key", keyfile, "--json", *ONE)
    summary = json.loads(result.stdout.splitlines()[-1])["summary"]
    assert (summary["files"], summary["keys"], summary["tests"]) == (2, 2, 12)


def test_a_passphrase_is_used_for_encrypted_keys_only(downloads, keyfile, tmp_path):
    sealed = tmp_path / "sealed.key"
    downloads.stranger.save(sealed, "correct horse")
    arguments = ["scan", *downloads.marked, "--key", keyfile, "--key", sealed, *ONE]
    result = run(*arguments, KERAS_WM_PASSPHRASE="correct horse")
    assert result.returncode == 0
    assert result.stdout.count("PROVEN") == 2


def test_a_record_gives_the_same_output_again(downloads, keyfile, tmp_path):
    arguments = ["scan", *downloads.marked, "--key", keyfile, *ONE]
    arguments += ["--record", tmp_path / "scan.jsonl", "--json"]
    first = run(*arguments).stdout.splitlines()
    assert sorted(run(*arguments).stdout.splitlines()) == sorted(first)


def test_mistakes_are_reported_in_one_line(downloads, keyfile, tmp_path):
    (tmp_path / "notes").write_text("hello\n")
    assert run("scan", downloads.folder).returncode == 64
    assert_fails(run("scan", "--key", keyfile), 2, "Expected files, folders")
    wrong = ["scan", downloads.folder, "--key", keyfile]
    assert_fails(run(*wrong, "--limit", "cpu=5"), 2, "NAME one of array_bytes")
    assert_fails(run(*wrong, "--limit", "depth=many"), 2, "'depth=many'")
    assert_fails(run(*wrong, "--record", tmp_path / "notes"), 2, "Line 1 of")


def test_an_interrupt_exits_with_130_and_ends_all_processes(keyfile, downloads):
    command = [sys.executable, "-m", "keras_wm", "scan", "--key", str(keyfile)]
    # Reading this file takes seconds.
    command += [str(downloads.folder / "endless.h5"), *PATIENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        this = psutil.Process(process.pid)
        while not this.children():
            assert process.poll() is None
        below = this.children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == []
