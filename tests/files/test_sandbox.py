"""A process that may be lost to a file: what it costs, and what it cannot see."""

import os
import signal
import sys
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
    with Sandbox(Limits(cpu_seconds=1, **PATIENT)) as sandbox:
        yield sandbox


def refused(sandbox, path, match, error=UnsafeFileError):
    with pytest.raises(error, match=match) as caught, sandbox.open_model_file(path):
        pass
    return str(path) in str(caught.value)


@pytest.mark.parametrize("what", ["archive", "weights", "legacy", "legacy weights"])
def test_a_sandbox_gives_what_reading_here_gives(saved, sandbox, what):
    path = saved.files[what]
    with (
        open_model_file(path) as here,
        sandbox.open_model_file(path) as there,
    ):
        assert (here.path, here.format) == (there.path, there.format)
        for one, other in zip(here.kernels, there.kernels, strict=True):
            assert one.name == other.name
            assert (one.path, one.shape, one.dtype) == (
                other.path,
                other.shape,
                other.dtype,
            )
            np.testing.assert_array_equal(one.read(), other.read())


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
def test_every_type_of_float_comes_through(tmp_path, sandbox, dtype):
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
def test_errors_are_those_of_reading_here(tmp_path, sandbox, content, error):
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


def test_a_file_that_keeps_its_reader_busy_costs_one_error(tmp_path, sandbox, weights):
    endless = write_endless(tmp_path / "endless.h5")
    assert refused(sandbox, endless, r"more than Limits\.cpu_seconds=1 of processor")
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
def test_a_file_that_asks_for_much_memory_costs_one_error(tmp_path):
    # As text 30 MB, as Python objects about 25 times as much.
    config = b"[" + b"[]," * 10_000_000 + b"[]]"
    path = write_archive(tmp_path / "a.keras", weights_bytes(name=None), config)
    limits = Limits(config_bytes=10**8, json_values=10**9, memory_bytes=150_000_000)
    with Sandbox(limits) as sandbox:
        assert refused(sandbox, path, r"more memory.*Limits\.memory_bytes")


@LINUX
def test_an_array_of_the_allowed_size_finds_its_memory(tmp_path):
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
def test_the_passphrase_of_the_key_is_not_handed_down(weights, monkeypatch):
    monkeypatch.setenv("KERAS_WM_PASSPHRASE", "correct horse")
    with Sandbox() as sandbox, sandbox.open_model_file(weights):
        environment = Path(f"/proc/{sandbox.start().pid}/environ").read_bytes()
    assert b"HDF5_PLUGIN_PRELOAD=::" in environment
    assert b"correct horse" not in environment


def test_modules_beside_a_download_are_not_imported(tmp_path, weights, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')")
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with Sandbox() as sandbox, sandbox.open_model_file(weights) as model_file:
        assert len(model_file.kernels) == 1


def test_what_the_reader_prints_is_not_taken_for_an_answer(weights, monkeypatch):
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    with Sandbox() as sandbox, sandbox.open_model_file(weights) as model_file:
        assert len(model_file.kernels) == 1


def test_nothing_is_left_running(weights):
    with Sandbox() as sandbox:
        child = sandbox.start()
    assert not child.alive
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
