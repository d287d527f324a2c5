"""Only the necessary bytes of a large file are read."""

import io
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save

from keras_wm.files import open_model_file
from keras_wm.files.storage.streams import Window
from tests.files.written import weights_bytes, write_archive

LARGE = np.zeros((1024, 2048), "float32")


class CountingFile(io.BytesIO):
    """A file that counts the bytes that are read."""

    count = 0

    def read(self, size=-1):
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.fixture
def large():
    """An archive whose only kernel has 8 MiB."""
    file = CountingFile()
    write_archive(file, weights_bytes(kernel=LARGE))
    file.count = 0
    return file


def test_listing_the_kernels_reads_kilobytes(large):
    with open_model_file(large):
        assert large.count < 50_000


def test_reading_a_kernel_reads_it_once(large):
    with open_model_file(large) as model_file:
        model_file.kernels[0].read()
        assert LARGE.nbytes < large.count < LARGE.nbytes + 50_000


def test_only_the_kernel_that_is_read_is_fetched_from_a_safetensors_file():
    file = CountingFile(save({"a": LARGE, "b.small": np.ones((4, 5), "float32")}))
    with open_model_file(file) as model_file:
        assert file.count < 1000
        for kernel in model_file.kernels:
            if kernel.layer == "b":
                kernel.read()
        # As stored, and with its axes in the other order.
        assert file.count < 1000 + 2 * 80


def test_a_window_shows_its_part_of_a_file():
    window = Window(io.BytesIO(b"0123456789"), start=2, size=5)
    assert window.read() == b"23456"
    assert (window.seek(-2, io.SEEK_END), window.read(9)) == (3, b"56")
    assert (window.seek(1), window.seek(1, io.SEEK_CUR), window.read(1)) == (1, 2, b"4")
    assert (window.seek(100), window.read(1)) == (100, b"")
    with pytest.raises(OSError, match="seek"):
        window.seek(-1)


def test_a_stored_member_is_read_in_place(monkeypatch, large):
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with open_model_file(large) as model_file:
        assert len(model_file.kernels) == 1
