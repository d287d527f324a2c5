"""A damaged file is read or raises `ModelFileError`, whatever the damage."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm.errors import ModelFileError
from keras_wm.files import open_model_file
from tests.files.written import (
    read_kernels,
    write_archive,
    write_legacy,
    write_weights,
)

# HDF5 may search endlessly in a damaged attribute of variable length, but these files
# contain no such attribute that is read.
DATA = Path(__file__).parents[1] / "data"
FILES = [
    DATA / name for name in ("keras_2_15.h5", "keras_2_15.keras", "keras_3_3.keras")
]
bounded = settings(derandomize=True, max_examples=100, deadline=None)


@pytest.mark.parametrize("good", FILES, ids=lambda path: path.name)
@bounded
@given(data=st.data())
def test_flipped_bytes_leave_kernels_or_a_model_file_error(good, data):
    content = bytearray(good.read_bytes())
    positions = st.integers(0, len(content) - 1)
    flips = st.dictionaries(positions, st.integers(0, 255), min_size=1, max_size=8)
    for position, value in data.draw(flips).items():
        content[position] = value
    try:
        with open_model_file(io.BytesIO(content)) as model_file:
            for kernel in model_file.kernels:
                assert kernel.read().shape == kernel.shape
    except ModelFileError as error:
        assert str(error).startswith("an open file: ")


@pytest.mark.parametrize("good", FILES, ids=lambda path: path.name)
@bounded
@given(data=st.data())
def test_a_truncated_file_is_a_model_file_error(good, data):
    content = good.read_bytes()
    size = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(ModelFileError, match=r"^an open file: "):
        read_kernels(io.BytesIO(content[:size]))


@pytest.mark.parametrize("write", [write_archive, write_weights, write_legacy])
def test_a_file_that_ends_at_any_byte_is_a_model_file_error(write, tmp_path):
    content = write(tmp_path / "good").read_bytes()
    for size in range(len(content)):
        with pytest.raises(ModelFileError):
            read_kernels(io.BytesIO(content[:size]))


def test_appended_bytes_do_not_change_the_kernels(tmp_path):
    good = FILES[0].read_bytes()
    (tmp_path / "longer").write_bytes(good + bytes(1000))
    expected = read_kernels(FILES[0])
    kernels = read_kernels(tmp_path / "longer")
    assert kernels.keys() == expected.keys()
    for name, kernel in expected.items():
        np.testing.assert_array_equal(kernels[name], kernel)
