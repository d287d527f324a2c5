"""One HDF5 file for each attack."""

import zlib

import h5py
import numpy as np
import pytest

from keras_wm.errors import UnsafeFileError
from keras_wm.files import Limits, open_model_file
from tests.files.written import DENSE, KERNEL, read_kernels, write_weights


def refused(path, match, **options):
    """Reads all kernels, which is an error; returns whether it names the file."""
    with pytest.raises(UnsafeFileError, match=match) as caught:
        read_kernels(path, **options)
    return str(path) in str(caught.value)


@pytest.fixture
def secret(tmp_path):
    """Another file, which must never be read."""
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["vars/0"] = np.full((3, 4), 42, "float32")
    return path


def test_an_external_link_is_refused(weights, secret):
    with h5py.File(weights, "r+") as file:
        file["layers/stolen"] = h5py.ExternalLink(secret, "/")
    assert refused(weights, "'layers/stolen' is an external link")


def test_an_external_link_in_the_place_of_a_legacy_model_is_refused(tmp_path, secret):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink(secret, "/")
    assert refused(tmp_path / "a.h5", "'model_weights' is an external link")


def test_a_soft_link_is_refused(weights):
    with h5py.File(weights, "r+") as file:
        file["layers/dense/vars/1"] = h5py.SoftLink("/layers/dense/vars/0")
    assert refused(weights, "'layers/dense/vars/1' is a soft link")


def test_a_soft_link_to_itself_is_refused(weights):
    with h5py.File(weights, "r+") as file:
        file["loop"] = h5py.SoftLink("/loop")
    assert refused(weights, "'loop' is a soft link")


def test_soft_links_in_a_circle_are_refused(weights):
    with h5py.File(weights, "r+") as file:
        file["there"] = h5py.SoftLink("/back")
        file["back"] = h5py.SoftLink("/there")
    assert refused(weights, "'back' is a soft link")


def test_a_soft_link_to_a_path_outside_is_refused(weights):
    with h5py.File(weights, "r+") as file:
        file["up"] = h5py.SoftLink("../../etc/passwd")
    assert refused(weights, "'up' is a soft link")


def test_a_link_in_the_place_of_the_layers_is_refused(tmp_path, secret):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("vars").attrs["name"] = "c1"
        file["layers"] = h5py.ExternalLink(secret, "/")
    assert refused(tmp_path / "a.h5", "'layers' is an external link")


def test_a_name_of_two_members_is_refused(weights, secret):
    with h5py.File(weights, "r+") as file:
        file["twin_a"] = h5py.ExternalLink(secret, "/")
        file.create_group("twin_b")
    weights.write_bytes(weights.read_bytes().replace(b"twin_b", b"twin_a"))
    assert refused(weights, "'twin_a' is the name of two members of its group")


def test_references_to_objects_and_regions_are_not_followed(weights):
    with h5py.File(weights, "r+") as file:
        kernel = file[f"{DENSE}/vars/0"]
        for name, dtype, reference in [
            ("1", h5py.ref_dtype, kernel.ref),
            ("2", h5py.regionref_dtype, kernel.regionref[1:]),
        ]:
            array = file.create_dataset(f"{DENSE}/vars/{name}", (2, 2), dtype)
            array[0, 0] = reference
            file[f"{DENSE}/vars"].attrs[f"to_{name}"] = reference
    assert read_kernels(weights).keys() == {"c1/0"}


def test_external_storage_is_refused(weights, secret):
    with h5py.File(weights, "r+") as file:
        file.create_dataset("vars/0", (3, 4), "f4", external=[(str(secret), 0, 48)])
    assert refused(weights, "'vars/0' keeps its data in another file")


def test_external_storage_of_an_array_that_is_not_a_kernel_is_refused(weights, secret):
    with h5py.File(weights, "r+") as file:
        file.create_dataset("other", (4,), "i4", external=[(str(secret), 0, 16)])
    assert refused(weights, "'other' keeps its data in another file")


def test_a_virtual_dataset_is_refused(weights, secret):
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource(secret, "vars/0", (3, 4))
    with h5py.File(weights, "r+") as file:
        file.create_virtual_dataset("vars/0", layout)
    assert refused(weights, r"'vars/0' is put together from other datasets")


@pytest.mark.parametrize(
    "filters", [{"compression": "lzf"}, {"scaleoffset": 3}], ids=str
)
def test_a_filter_that_is_not_supported_is_refused(tmp_path, filters):
    path = write_weights(tmp_path / "a.h5", **filters)
    assert refused(path, r"HDF5 filter \d+, which could load native code.*h5repack")


def test_a_filter_that_is_a_plug_in_is_refused(weights):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((3, 4))
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((3, 4))
    with h5py.File(weights, "r+") as file:
        h5py.h5d.create(file.id, b"zstd", h5py.h5t.IEEE_F32LE, space, plan)
    assert refused(weights, r"'zstd' needs HDF5 filter 32015")


def test_an_array_that_was_never_written_is_refused(weights):
    with h5py.File(weights, "r+") as file:
        file.create_dataset("vars/0", (1_000_000, 1_000_000), "f4")
    assert refused(weights, "'vars/0' declares 4,000,000,000,000 bytes, and 0")


def test_a_chunked_array_that_was_never_written_is_refused(weights):
    with h5py.File(weights, "r+") as file:
        file.create_dataset("vars/0", (10**6, 10**6), "f4", compression="gzip")
    assert refused(weights, "'vars/0' declares 4,000,000,000,000 bytes, and 0")


def test_arrays_that_share_their_bytes_are_refused(weights):
    with h5py.File(weights, "r+") as file:
        for name in ("vars/0", "vars/1"):
            file[name] = np.ones((100, 100), "float32")
        first, second = (file[f"vars/{name}"].id.get_offset() for name in "01")
    data = weights.read_bytes().replace(address(second), address(first))
    # Byte 40 of the superblock is where the length of the file starts.
    weights.write_bytes(data[:40] + address(second) + data[48:second])
    assert refused(weights, "'vars/1' declares 40,000 bytes.* more than the file has")


def address(offset):
    return offset.to_bytes(8, "little")


def test_an_array_above_the_limit_is_listed_and_not_read(weights):
    with open_model_file(weights, Limits(array_bytes=47)) as model_file:
        (kernel,) = model_file.kernels
        match = f"{weights}.*48 bytes, more than Limits.array_bytes=47.*trust"
        with pytest.raises(UnsafeFileError, match=match):
            kernel.read()


def write_chunk(path, shape, chunk, stored):
    """Adds a deflated array with the given bytes as its first stored chunk."""
    with h5py.File(path, "r+") as file:
        array = file.create_dataset(
            "vars/0", shape, "f4", chunks=chunk, maxshape=(None, None), compression=9
        )
        array.id.write_direct_chunk((0, 0), stored)
    return path


def test_a_chunk_that_inflates_to_more_than_its_size_is_refused(weights):
    # HDF5 itself would inflate all bytes.
    bomb = zlib.compress(bytes(20_000_000), 9)
    write_chunk(weights, (100, 100), (100, 100), bomb)
    assert refused(weights, "'vars/0' has a chunk of 40,000 bytes that unpacks to")


def test_a_chunk_that_inflates_to_less_than_its_size_is_refused(weights):
    write_chunk(weights, (10, 10), (10, 10), zlib.compress(bytes(399)))
    assert refused(weights, "'vars/0' has a chunk of 400 bytes that unpacks to")


def test_a_chunk_far_larger_than_the_array_is_refused(weights):
    write_chunk(weights, (8, 8), (20_000, 20_000), zlib.compress(b""))
    match = "'vars/0' has chunks of 1,600,000,000 bytes, more than"
    assert refused(weights, match, limits=Limits(chunk_bytes=10**9))


def test_a_chunk_that_is_stored_in_too_many_bytes_is_refused(weights):
    write_chunk(weights, (10, 10), (10, 10), bytes(10_000))
    assert refused(weights, r"'vars/0' has no chunk at \(0, 0\), or too large a one")


def test_an_array_with_a_chunk_missing_is_refused(weights):
    write_chunk(weights, (20, 10), (10, 10), zlib.compress(bytes(400)))
    assert refused(weights, r"'vars/0' has no chunk at \(10, 0\)")


def test_an_array_that_unpacks_to_more_than_the_limit_is_refused(tmp_path):
    path = write_weights(tmp_path / "a.h5", compression="gzip")
    match = "'layers/dense/vars/0' has 48 bytes when it is unpacked, more than"
    assert refused(path, match, limits=Limits(unpacked_bytes=47))


def test_more_chunks_than_the_limit_are_refused(tmp_path):
    path = write_weights(tmp_path / "a.h5", chunks=(1, 1))
    assert refused(path, "12 chunks", limits=Limits(chunks=11))


def test_a_group_that_contains_itself_is_listed_once(weights):
    with h5py.File(weights, "r+") as file:
        file["layers/dense/again"] = file["layers"]
        file["layers/dense/top"] = file["/"]
    assert read_kernels(weights).keys() == {"c1/0"}


def test_a_fan_of_33_million_paths_to_one_array_is_listed_once(weights):
    with h5py.File(weights, "r+") as file:
        group = file
        for _ in range(25):
            below = group.create_group("a")
            group["b"] = below
            group = below
        group["vars/0"] = KERNEL
    assert len(read_kernels(weights)) == 2


def test_an_array_under_two_names_is_listed_once(weights):
    with h5py.File(weights, "r+") as file:
        file["layers/dense/vars/1"] = file["layers/dense/vars/0"]
    assert read_kernels(weights).keys() == {"c1/0"}


def test_no_dataset_stays_open_after_the_listing(weights):
    def open_datasets():
        return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_DATASET)

    before = open_datasets()
    with open_model_file(weights) as model_file:
        assert len(model_file.kernels) == 1
        assert open_datasets() == before


def test_groups_that_are_nested_too_deeply_are_refused(weights):
    with h5py.File(weights, "r+") as file:
        file.create_group("/".join("a" * 70))
    assert refused(weights, "nested deeper than Limits.depth=64")


def test_a_group_of_too_many_members_is_refused(weights):
    with h5py.File(weights, "r+") as file:
        for index in range(11):
            file.create_group(f"{DENSE}/{index}")
    match = "'layers/dense' has more members than Limits.children=11"
    assert refused(weights, match, limits=Limits(children=11))


def test_a_file_of_too_many_objects_is_refused(weights):
    with h5py.File(weights, "r+") as file:
        for index in range(11):
            file.create_group(f"{index}/{index}")
    assert refused(weights, "Limits.objects=10", limits=Limits(objects=10))


def test_links_count_as_objects(weights):
    with h5py.File(weights, "r+") as file:
        for index in range(11):
            file[f"again{index}"] = file["layers"]
    assert refused(weights, "Limits.objects=10", limits=Limits(objects=10))


def test_the_state_of_an_optimizer_counts_as_one_object(weights):
    with h5py.File(weights, "r+") as file:
        for index in range(20):
            file[f"optimizer/vars/{index}"] = KERNEL
    assert read_kernels(weights, limits=Limits(objects=10)).keys() == {"c1/0"}


def test_a_path_that_is_too_long_is_refused(weights):
    with h5py.File(weights, "r+") as file:
        file.create_group("/".join(["a" * 100] * 11))
    assert refused(weights, "the HDF5 name 'aaa.* is not one that Keras writes")


def test_a_file_that_takes_too_many_bytes_to_list_is_refused(weights):
    with h5py.File(weights, "r+") as file:
        file.create_group("big").attrs["text"] = np.bytes_(b"a" * 50_000)
    match = "to list it, more than Limits.listing_bytes=40,000 bytes are read"
    assert refused(weights, match, limits=Limits(listing_bytes=40_000))


def test_a_kernel_can_be_larger_than_the_limit_for_listing(tmp_path):
    path = write_weights(tmp_path / "a.h5", kernel=np.ones((100, 100), "float32"))
    assert read_kernels(path, limits=Limits(listing_bytes=20_000))["c1/0"].sum() == 1e4


def test_a_name_that_is_too_long_is_refused(weights):
    with h5py.File(weights, "r+") as file:
        file.create_group("a" * 2000)
    assert refused(weights, "the HDF5 name 'aaa.* is not one that Keras writes")


@pytest.mark.parametrize("name", [b"a\xffb", b"a/b", b"..\0"])
def test_an_invalid_name_is_refused(weights, name):
    with h5py.File(weights, "r+") as file:
        file.create_group("group/xyz")
    weights.write_bytes(weights.read_bytes().replace(b"xyz", name))
    assert refused(weights, "is not one that Keras writes")


def damage_heap(path, offset, value):
    """Overwrites a length in the heap collection that holds the layer's name."""
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL") + offset
    data[start : start + 8] = value.to_bytes(8, "little")
    path.write_bytes(data)


# The name starts at byte 16 and takes 24 bytes. Free space follows it. The length of
# each is 8 bytes after its start.
@pytest.mark.parametrize(
    ("offset", "value"), [(48, 0), (48, 2**63), (24, 2**64 - 16), (24, 2**64 - 1)]
)
def test_texts_that_hdf5_would_search_endlessly_are_refused(weights, offset, value):
    damage_heap(weights, offset, value)
    assert refused(weights, "texts of variable length are stored in a way that HDF5")


def test_texts_in_a_large_collection_are_read(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        variables = file.create_group(f"{DENSE}/vars")
        variables.attrs["long"] = "a" * 300_000
        for index in range(1000):
            variables.attrs[f"short{index}"] = f"{index}"
        variables.attrs["name"] = "c1"
        variables["0"] = KERNEL
    assert read_kernels(path).keys() == {"c1/0"}


def test_addresses_of_another_size_are_refused(tmp_path):
    plan = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plan.set_sizes(4, 4)
    path = tmp_path / "a.h5"
    h5py.File(h5py.h5f.create(str(path).encode(), fcpl=plan)).close()
    assert refused(path, "its addresses or lengths do not have 8 bytes")


def test_errors_cannot_control_a_terminal(weights):
    with h5py.File(weights, "r+") as file:
        file["\x1b[2J"] = h5py.SoftLink("/")
    assert refused(weights, r"'\\x1b\[2J' is a soft link")


def test_attributes_that_are_not_needed_are_not_read(weights):
    with h5py.File(weights, "r+") as file:
        file.attrs["model_config"] = "x" * 60_000
        file["layers/dense/vars"].attrs.create("odd", np.zeros(1000), (1000,), "f8")
    assert read_kernels(weights).keys() == {"c1/0"}
