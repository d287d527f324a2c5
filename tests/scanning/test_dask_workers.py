"""A scan on a Dask cluster of two processes on this machine."""

import json
import os
import pickle
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

import keras_wm
from keras_wm import Limits
from keras_wm.scanning.examiner import ScanSettings
from keras_wm.scanning.packed_settings import PackedSettings
from tests.command_line import assert_fails, run, run_process
from tests.files.written import PATIENT

QUICK = Limits(cpu_seconds=1, **PATIENT)


@contextmanager
def running(program, folder, *options):
    """Runs a program of Dask, and ends it on exit."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{program}"]
    with subprocess.Popen(
        [*command, "--no-dashboard", *map(str, options)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"DASK_TEMPORARY_DIRECTORY": str(folder)},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a Dask scheduler with a worker of two threads."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    options = ["--scheduler-file", file]
    local = ["--host", "127.0.0.1", "--port", 0]
    with (
        running("scheduler", folder, *local, *options) as process,
        running("worker", folder, "--nthreads", 2, "--no-nanny", *options),
    ):
        while not (file.exists() and file.stat().st_size):
            assert process.poll() is None
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"]


@pytest.fixture
def client(scheduler):
    from distributed import Client

    with Client(scheduler) as client:
        client.wait_for_workers(1)
        yield client


@pytest.mark.study
def test_a_cluster_gives_the_same_report_as_this_machine(downloads, client):
    keys = [downloads.key, downloads.stranger]
    here = keras_wm.scan(downloads.folder, keys, limits=QUICK)
    there = keras_wm.scan(downloads.folder, keys, limits=QUICK, client=client)
    assert len(there.found) == 2
    assert there.to_dict() == here.to_dict()


@pytest.mark.study
def test_more_files_than_concurrent_tasks_are_all_read(downloads, client, tmp_path):
    for index in range(300):
        (tmp_path / f"{index:03}.h5").symlink_to(downloads.folder / "b.weights.h5")
    report = keras_wm.scan(tmp_path, downloads.key, client=client)
    assert (report.files, report.tests, report.unread) == (300, 300, [])


@pytest.mark.study
def test_a_scan_resumes_on_a_cluster(downloads, client, tmp_path):
    record = tmp_path / "scan.jsonl"
    here = keras_wm.scan(downloads.marked[0], downloads.key, record=record)
    assert here.files == 1
    there = keras_wm.scan(downloads.marked, downloads.key, record=record, client=client)
    assert there.files == 2
    assert len(record.read_text().splitlines()) == 3


@pytest.mark.study
def test_the_command_accepts_a_schedulers_address(downloads, scheduler, tmp_path):
    downloads.key.save(tmp_path / "owner.key")
    arguments = ["scan", *downloads.marked, "--key", tmp_path / "owner.key"]
    result = run(*arguments, "--dask", scheduler)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("PROVEN") == 2


def test_without_dask_the_command_says_what_to_install(downloads, tmp_path):
    downloads.key.save(tmp_path / "owner.key")
    (tmp_path / "distributed.py").write_text("raise ImportError")
    arguments = ["scan", downloads.folder, "--key", tmp_path / "owner.key"]
    result = run_process(
        *arguments, "--dask", "tcp://127.0.0.1:9", PYTHONPATH=str(tmp_path)
    )
    assert_fails(result, 2, 'pip install "keras-wm[dask]"')


def test_packed_settings_can_be_pickled_and_do_not_show_their_secret(key):
    packed = PackedSettings(ScanSettings([key], "wide", QUICK))
    again = pickle.loads(pickle.dumps(packed))  # noqa: S301
    assert again.settings == packed.settings
    assert key._source.secret.reveal() not in repr(packed)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(key)
