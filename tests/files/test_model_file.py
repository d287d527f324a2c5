"""Model files that are open already, and models in memory."""

import io
import json
import tempfile

import numpy as np
import pytest

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files import Limits, Sandbox, open_model, open_model_file
from tests.files.written import (
    KERNEL,
    weights_bytes,
    write_archive,
    write_legacy,
    write_safetensors,
    write_weights,
)

WRITERS = (write_weights, write_legacy, write_archive, write_safetensors)


@pytest.fixture
def weights(tmp_path):
    """The path of a weights file."""
    return write_weights(tmp_path / "a.weights.h5")


@pytest.mark.parametrize("write", WRITERS)
def test_an_open_file_of_every_format_is_read_and_not_closed(tmp_path, write):
    path = write(tmp_path / "a")
    with path.open("rb") as file, open_model_file(path) as by_path:
        file.seek(7)  # It is read from its start.
        with open_model_file(file) as opened:
            assert opened.format == by_path.format
            for kernel, expected in zip(opened.kernels, by_path.kernels, strict=True):
                assert kernel.name == expected.name
                np.testing.assert_array_equal(kernel.read(), expected.read())
        assert opened.path == str(path)
        assert not file.closed


def test_a_file_in_memory_is_read_and_not_closed():
    file = io.BytesIO(weights_bytes())
    for _ in range(2):
        with open_model_file(file) as opened:
            np.testing.assert_array_equal(opened.kernels[0].read(), KERNEL)
        assert opened.path == "an open file"
    assert not file.closed


def test_a_file_without_a_textual_name_is_called_an_open_file():
    with tempfile.TemporaryFile() as file:
        assert not isinstance(file.name, str)
        file.write(b"GGUF")
        match = "^an open file: not a Keras model file: it is a GGUF model"
        with pytest.raises(UnsupportedFileError, match=match), open_model_file(file):
            pass
        assert not file.closed


def test_the_limits_hold_for_an_open_file(weights):
    with (
        weights.open("rb") as file,
        open_model_file(file, Limits(array_bytes=8)) as opened,
        pytest.raises(UnsafeFileError, match=r"weights.h5: .*Limits.array_bytes=8"),
    ):
        opened.kernels[0].read()


def test_a_file_that_the_caller_closed_cannot_be_read(weights):
    with weights.open("rb") as file, open_model_file(file) as opened:
        file.close()
        with pytest.raises(ModelFileError, match=f"^{weights}: "):
            opened.kernels[0].read()


def test_the_shards_of_an_open_index_are_not_available():
    index = {"metadata": {}, "weight_map": {"/layers/dense/vars": "m_0.weights.h5"}}
    file = io.BytesIO(json.dumps(index).encode())
    match = "an open file: it is the index of a model in several files"
    with pytest.raises(UnsupportedFileError, match=match), open_model_file(file):
        pass


def test_a_stream_without_positions_is_an_error():
    class Stream(io.BytesIO):
        def seekable(self):
            return False

    with (
        pytest.raises(ValueError, match="Expected a seekable file"),
        open_model_file(Stream(weights_bytes())),
    ):
        pass


@pytest.mark.parametrize("source", [io.StringIO("text"), 3, None, object()])
@pytest.mark.parametrize("opener", [open_model, open_model_file])
def test_an_object_that_is_not_a_model_is_an_error(opener, source):
    match = f"Expected a model file, .* Received: {type(source).__name__}"
    with pytest.raises(TypeError, match=match), opener(source):
        pass


def test_an_open_file_cannot_be_read_in_a_sandbox(weights):
    with weights.open("rb") as file, Sandbox() as sandbox:
        for option in (True, sandbox):
            with (
                pytest.raises(ValueError, match="Expected the path of a model file"),
                open_model(file, sandbox=option),
            ):
                pass


def test_an_open_file_and_its_path_are_the_same_model(weights):
    with (
        weights.open("rb") as file,
        open_model(file) as opened,
        open_model(weights, sandbox=True) as sandboxed,
    ):
        assert opened.path == sandboxed.path
        assert [kernel.name for kernel in opened.kernels] == ["c1/0"]
        assert [kernel.name for kernel in sandboxed.kernels] == ["c1/0"]


def test_a_model_in_memory_has_a_name_weights_and_a_config():
    class Model:
        name = "mine"
        weights = ()

        def get_config(self):
            return {"layers": []}

    with open_model(Model()) as opened:
        assert opened.path == "model 'mine' in memory"
        assert opened.weights == []
        assert opened.config() == {"class_name": "Model", "config": {"layers": []}}
