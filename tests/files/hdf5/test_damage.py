"""A damaged file is read or is an error of ours, whatever the damage."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_wm.errors import ModelFileError
from keras_wm.files import open_model_file
from tests.files.written import (
    read_kernels,
    write_archive,
    write_legacy,
    write_weights,
)

# HDF5 may search without end in a damaged attribute of variable length. No such
# attribute is read of these files.
DATA = Path(__file__).parents[1] / "data"
FILES = [
    DATA / name for name in ("keras_2_15.h5", "keras_2_15.keras", "keras_3_3.keras")
]
bounded = settings(
    derandomize=True,
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("good", FILES, ids=lambda path: path.name)
@bounded
@given(data=st.data())
def test_flipped_bytes_leave_kernels_or_a_model_file_error(good, tmp_path, data):
    content = bytearray(good.read_bytes())
    places = st.integers(0, len(content) - 1)
    flips = st.dictionaries(places, st.integers(0, 255), min_size=1, max_size=8)
    for place, value in data.draw(flips).items():
        content[place] = value
    path = tmp_path / "damaged"
    path.write_bytes(content)
    try:
        with open_model_file(path) as model_file:
            for kernel in model_file.kernels:
                assert kernel.read().shape == kernel.shape
    except ModelFileError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("good", FILES, ids=lambda path: path.name)
@bounded
@given(data=st.data())
def test_a_truncated_file_is_a_model_file_error(good, tmp_path, data):
    content = good.read_bytes()
    path = tmp_path / "truncated"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ModelFileError, match="truncated: "):
        read_kernels(path)


@pytest.mark.parametrize("write", [write_archive, write_weights, write_legacy])
def test_a_file_that_ends_at_any_byte_is_a_model_file_error(write, tmp_path):
    content = write(tmp_path / "good").read_bytes()
    path = tmp_path / "truncated"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(ModelFileError):
            read_kernels(path)


def test_bytes_that_are_appended_do_not_change_the_kernels(tmp_path):
    good = FILES[0].read_bytes()
    (tmp_path / "longer").write_bytes(good + bytes(1000))
    expected = read_kernels(FILES[0])
    found = read_kernels(tmp_path / "longer")
    assert found.keys() == expected.keys()
    for name, kernel in expected.items():
        np.testing.assert_array_equal(found[name], kernel)
