"""Model files at URLs: only the necessary bytes are transferred."""

import h5py
import numpy as np
import pytest

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files import Limits, Sandbox, open_model_file, select
from tests.files.servers import s3_store, serving
from tests.files.written import KERNEL, write_archive, write_weights

MEBIBYTE = 2**20


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An archive of 32 kernels of 1 MiB each, and one of the kernels."""
    folder = tmp_path_factory.mktemp("large")
    with h5py.File(folder / "weights.h5", "w") as file:
        for index in range(32):
            variables = file.create_group(f"layers/dense_{index}/vars")
            variables.attrs["name"] = f"d{index}"
            variables["0"] = np.full((512, 512), index, "float32")
            variables["1"] = np.zeros(512, "float32")
    weights = (folder / "weights.h5").read_bytes()
    path = write_archive(folder / "large.keras", weights)
    return path, np.full((512, 512), 17, "float32")


def read(path, layer):
    """Returns the kernel of one layer."""
    with open_model_file(path) as model_file:
        (kernel,) = select(model_file.kernels, layer, path)
        return kernel.read()


def test_reading_a_kernel_over_http_transfers_little_more_than_its_bytes(large):
    path, kernel = large
    with serving(path.parent) as server:
        np.testing.assert_array_equal(read(f"{server.url}/{path.name}", "d17"), kernel)
    assert kernel.nbytes < server.sent < kernel.nbytes + MEBIBYTE // 2


def test_listing_kernels_over_http_transfers_no_kernel(large):
    path, _ = large
    with serving(path.parent) as server:
        with open_model_file(f"{server.url}/{path.name}") as model_file:
            assert len(model_file.kernels) == 32
        assert server.sent < MEBIBYTE // 2
        assert server.requests < 100


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5"])
def test_a_small_file_over_http_is_read(tmp_path, server, name):
    (write_archive if name.endswith("keras") else write_weights)(tmp_path / name)
    np.testing.assert_array_equal(read(f"{server.url}/{name}", "c1"), KERNEL)


def test_a_server_without_range_requests_is_an_error(large):
    path, _ = large
    with serving(path.parent, honours_ranges=False) as server:
        match = "does not support reading parts.*Download"
        with pytest.raises(ModelFileError, match=match):
            read(f"{server.url}/{path.name}", "d17")


def test_a_url_of_a_missing_file_is_an_error(server):
    with pytest.raises(ModelFileError, match="there is no such file"):
        read(f"{server.url}/a.keras", "c1")


def test_an_unreachable_server_is_an_error():
    with pytest.raises(ModelFileError, match=r"127\.0\.0\.1:9.*cannot be reached"):
        read("http://127.0.0.1:9/a.keras", "c1")


def test_a_server_that_never_answers_costs_one_error(server):
    with (
        Sandbox(Limits(wall_seconds=2)) as sandbox,
        pytest.raises(UnsafeFileError, match=r"Limits\.wall_seconds=2"),
        sandbox.open_model_file(f"{server.url}/stuck"),
    ):
        pass


def test_a_sandbox_reads_urls(tmp_path, server):
    write_archive(tmp_path / "a.keras")
    url = f"{server.url}/a.keras"
    with Sandbox() as sandbox, sandbox.open_model_file(url) as model_file:
        np.testing.assert_array_equal(model_file.kernels[0].read(), KERNEL)


@pytest.mark.study
def test_a_kernel_is_read_from_s3(tmp_path):
    path = write_archive(tmp_path / "a.keras")
    with s3_store("models") as client:
        client.upload_file(str(path), "models", "deep/a.keras")
        np.testing.assert_array_equal(read("s3://models/deep/a.keras", "c1"), KERNEL)
        with pytest.raises(ModelFileError, match="there is no such file"):
            read("s3://models/b.keras", "c1")
        url = "s3://models/deep/a.keras"
        with Sandbox() as sandbox, sandbox.open_model_file(url) as model_file:
            assert len(model_file.kernels) == 1
