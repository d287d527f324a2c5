"""Locations of model files, and errors for files that cannot be opened."""

import os
import subprocess
import sys

import fsspec
import numpy as np
import pytest

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files import open_model_file
from tests.files.written import KERNEL, read_kernels, weights_bytes


@pytest.fixture
def memory():
    """fsspec's file system in memory, which is emptied after the test."""
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def fails(path, match, error=ModelFileError):
    """Opens a path, which is an error; returns whether the error names the path."""
    with pytest.raises(error, match=match) as caught, open_model_file(path):
        pass
    return str(path) in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path):
    assert fails(tmp_path / "a.keras", "there is no such file")


def test_a_file_that_may_not_be_opened_is_an_error(weights, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", forbidden)
    assert fails(weights, "cannot be opened: Permission denied")


@pytest.mark.parametrize("path", ["a\0b", "a" * 5000])
def test_an_impossible_path_is_an_error(path):
    with pytest.raises(ModelFileError), open_model_file(path):
        pass


def test_an_argument_that_is_not_a_path_is_a_type_error():
    with pytest.raises(TypeError), open_model_file(5):
        pass


def test_the_path_in_an_error_cannot_control_a_terminal(tmp_path):
    match = r"/\\x1b\[2Ja: there is no such file"
    with (
        pytest.raises(ModelFileError, match=match),
        open_model_file(tmp_path / "\x1b[2Ja"),
    ):
        pass


def test_a_symbolic_link_that_the_user_names_is_followed(weights, tmp_path):
    (tmp_path / "link").symlink_to(weights)
    assert read_kernels(tmp_path / "link").keys() == {"c1/0"}


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert fails(tmp_path / "pipe", "not a regular file", UnsafeFileError)


def test_a_device_is_refused():
    assert fails("/dev/zero", "not a regular file", UnsafeFileError)


def test_a_url_is_read(memory):
    memory.pipe("/a.weights.h5", weights_bytes())
    kernels = read_kernels("memory://a.weights.h5")
    np.testing.assert_array_equal(kernels["c1/0"], KERNEL)


def test_a_url_of_a_missing_file_is_an_error(memory):
    assert fails("memory://a.weights.h5", "there is no such file")


def test_a_url_of_a_folder_is_not_supported(memory):
    memory.pipe("/models/a.weights.h5", weights_bytes())
    match = "it is a folder with model files"
    assert fails("memory://models", match, UnsupportedFileError)


def test_a_url_of_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert fails(f"file://{tmp_path}/pipe", "not a regular file", UnsafeFileError)


def test_a_url_of_an_unknown_kind_is_an_error():
    assert fails("nonsense://a", "cannot be opened: Protocol not known")


def test_a_url_without_fsspec_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert fails("memory://a", r'pip install "keras-wm\[remote\]"')


def test_the_reader_imports_no_slow_package():
    heavy = "{'keras', 'tensorflow', 'jax', 'torch', 'scipy', 'fsspec', 'matplotlib'}"
    code = f"import sys, keras_wm.files; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
