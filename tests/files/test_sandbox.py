"""Model files that crash their reader, hang it or use up memory cost one error."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files import Limits, Sandbox, open_model_file
from tests.files.written import (
    KERNEL,
    PATIENT,
    weights_bytes,
    write_archive,
    write_endless,
    write_weights,
)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox


def refused(sandbox, path, match, error=UnsafeFileError):
    """Opens a file, which is an error; returns whether the error names the file."""
    with pytest.raises(error, match=match) as caught, sandbox.open_model_file(path):
        pass
    return str(path) in str(caught.value)


@pytest.mark.parametrize("format", ["archive", "weights", "legacy", "legacy weights"])
def test_a_sandbox_reads_the_same_as_this_process(saved, sandbox, format):
    path = saved.files[format]
    with open_model_file(path) as here, sandbox.open_model_file(path) as there:
        assert (here.path, here.format) == (there.path, there.format)
        for kernel, expected in zip(there.kernels, here.kernels, strict=True):
            assert replace(kernel, read=None) == replace(expected, read=None)
            np.testing.assert_array_equal(kernel.read(), expected.read())


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
def test_every_type_of_float_is_read(tmp_path, sandbox, dtype):
    path = write_weights(tmp_path / "a.h5", KERNEL.astype(dtype))
    with sandbox.open_model_file(path) as model_file:
        kernel = model_file.kernels[0].read()
    assert kernel.dtype == ("float64" if dtype == ">f8" else "float32")
    np.testing.assert_array_equal(kernel, KERNEL)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"hello", UnsupportedFileError),
        (weights_bytes()[:3000], ModelFileError),
        (weights_bytes() + b"more", None),
    ],
)
def test_errors_are_the_same_as_in_this_process(tmp_path, sandbox, content, error):
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    if error is None:
        with sandbox.open_model_file(path) as model_file:
            assert len(model_file.kernels) == 1
        return
    with pytest.raises(error) as here, open_model_file(path):
        pass
    with pytest.raises(error) as there, sandbox.open_model_file(path):
        pass
    assert str(here.value) == str(there.value)


def test_a_file_that_keeps_its_reader_busy_costs_one_error(tmp_path, weights):
    endless = write_endless(tmp_path / "endless.h5")
    with Sandbox(Limits(cpu_seconds=1, **PATIENT)) as sandbox:
        match = r"more than Limits\.cpu_seconds=1 of processor"
        assert refused(sandbox, endless, match)
        with sandbox.open_model_file(weights) as model_file:
            assert len(model_file.kernels) == 1


def test_a_crash_costs_one_error(sandbox, weights):
    with sandbox.open_model_file(weights) as model_file:
        os.kill(sandbox.start().pid, signal.SIGSEGV)
        with pytest.raises(UnsafeFileError, match=r"crashed the process.*SIGSEGV"):
            model_file.kernels[0].read()
    with sandbox.open_model_file(weights) as model_file:
        assert model_file.kernels[0].read().shape == KERNEL.shape


@LINUX
def test_a_file_that_needs_much_memory_costs_one_error(tmp_path):
    # 9 MB of text, which take about 25 times as much as Python objects.
    config = b"[" + b"[]," * 3_000_000 + b"[]]"
    path = write_archive(tmp_path / "a.keras", weights_bytes(name=None), config)
    limits = Limits(config_bytes=10**8, json_values=10**9, memory_bytes=150_000_000)
    with Sandbox(limits) as sandbox:
        assert refused(sandbox, path, r"more memory.*Limits\.memory_bytes")


@LINUX
def test_an_array_of_the_largest_allowed_size_is_read_within_the_memory_limit(tmp_path):
    kernel = np.ones((4096, 4096), "float16")
    path = write_weights(tmp_path / "a.h5", kernel)
    limits = Limits(array_bytes=kernel.nbytes, memory_bytes=20_000_000)
    with Sandbox(limits) as sandbox, sandbox.open_model_file(path) as model_file:
        assert model_file.kernels[0].read().sum(dtype="float64") == kernel.size


def test_an_array_above_the_limit_is_refused(weights):
    with (
        Sandbox(Limits(array_bytes=47)) as sandbox,
        sandbox.open_model_file(weights) as model_file,
        pytest.raises(UnsafeFileError, match=r"Limits\.array_bytes=47"),
    ):
        model_file.kernels[0].read()


def test_a_kernel_is_read_only_while_its_file_is_open(sandbox, weights):
    with sandbox.open_model_file(weights) as model_file:
        (kernel,) = model_file.kernels
    with pytest.raises(ModelFileError, match="only while its file is open"):
        kernel.read()
    with (
        sandbox.open_model_file(weights),
        pytest.raises(ModelFileError, match="only while its file is open"),
    ):
        kernel.read()


@LINUX
def test_the_child_does_not_inherit_the_passphrase_of_the_key(weights, monkeypatch):
    monkeypatch.setenv("KERAS_WM_PASSPHRASE", "correct horse")
    with Sandbox() as sandbox, sandbox.open_model_file(weights):
        environment = Path(f"/proc/{sandbox.start().pid}/environ").read_bytes()
    assert b"HDF5_PLUGIN_PRELOAD=::" in environment
    assert b"correct horse" not in environment


def test_modules_among_downloads_are_not_imported(tmp_path, weights, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')")
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with Sandbox() as sandbox, sandbox.open_model_file(weights) as model_file:
        assert len(model_file.kernels) == 1


def test_output_of_the_reader_is_not_taken_for_an_answer(weights, monkeypatch):
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    with Sandbox() as sandbox, sandbox.open_model_file(weights) as model_file:
        assert len(model_file.kernels) == 1


def test_starting_a_sandbox_imports_neither_numpy_nor_a_reader():
    code = (
        "import sys; from keras_wm.files import Sandbox; Sandbox().start().stop(); "
        "print(sorted({'numpy', 'h5py', 'keras', 'fsspec'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_no_process_is_left_running():
    with Sandbox() as sandbox:
        child = sandbox.start()
    assert not child.alive
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
