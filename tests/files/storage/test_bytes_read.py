"""How little of a large file is read."""

import io
import zipfile
from contextlib import ExitStack

import numpy as np
import pytest
from safetensors.numpy import save

from keras_wm.files.formats import safetensors as safetensors_file
from keras_wm.files.formats.keras_archive import recognise
from keras_wm.files.limits import DEFAULT_LIMITS
from keras_wm.files.storage.source import Source, as_source
from keras_wm.files.storage.streams import Window
from tests.files.written import weights_bytes, write_archive

LARGE = np.zeros((1024, 2048), "float32")


class CountingFile(io.BytesIO):
    """A file that counts what is read of it."""

    count = 0

    def read(self, size=-1):
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.fixture
def large():
    """An open archive whose one kernel has 8 MiB."""
    file = CountingFile()
    write_archive(file, weights_bytes(kernel=LARGE))
    return Source(file, file.tell(), b"PK\x03\x04", DEFAULT_LIMITS)


def test_listing_the_kernels_reads_kilobytes(large):
    with ExitStack() as stack:
        recognise(large, stack)
        assert large.file.count < 50_000


def test_reading_a_kernel_reads_it_once(large):
    with ExitStack() as stack:
        (kernel,) = recognise(large, stack).kernels
        kernel.read()
        assert LARGE.nbytes < large.file.count < LARGE.nbytes + 50_000


def test_a_kernel_of_a_safetensors_file_is_all_that_is_read():
    file = CountingFile(save({"a": LARGE, "b.small": np.ones((4, 5), "float32")}))
    with ExitStack() as stack:
        kernels = safetensors_file.recognise(
            as_source(file, DEFAULT_LIMITS), stack
        ).kernels
        assert file.count < 1000
        for kernel in kernels:
            if kernel.layer == "b":
                kernel.read()
        # Stored, and with its axes in the other order.
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
    with ExitStack() as stack:
        assert len(recognise(large, stack).kernels) == 1
