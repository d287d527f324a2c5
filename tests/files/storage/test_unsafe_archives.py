"""One archive for each attack."""

import struct
import warnings
import zipfile

import pytest

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files import Limits
from tests.files.written import read_kernels, weights_bytes, write_archive
from tests.files.zip_by_hand import stored, write_archive_of, write_quoted, zeros

WEIGHTS = "model.weights.h5"
# Offsets of a field in the local header and in the entry of the table of contents.
FLAGS, STORED, SIZE, NAME = (6, 8), (18, 20), (22, 24), (30, 46)
HEADERS = (b"PK\x03\x04", b"PK\x01\x02")


def overwrite_field(path, field, value, local=True, central=True):
    """Overwrites a field in the local header and the entry of the weights."""
    data = bytearray(path.read_bytes())
    for magic, offset, name, wanted in zip(
        HEADERS, field, NAME, (local, central), strict=True
    ):
        start = data.index(WEIGHTS.encode(), data.index(magic)) - name
        while data[start : start + 4] != magic:
            start = data.index(WEIGHTS.encode(), start + name + 1) - name
        if wanted:
            data[start + offset : start + offset + len(value)] = value
    path.write_bytes(data)
    return path


def refused(path, match, error=UnsafeFileError, **options):
    """Reads all kernels, which is an error; returns whether it names the file."""
    with pytest.raises(error, match=match) as caught:
        read_kernels(path, **options)
    return str(path) in str(caught.value)


def test_a_duplicate_name_is_refused(archive):
    with warnings.catch_warnings(), zipfile.ZipFile(archive, "a") as file:
        warnings.simplefilter("ignore")
        file.writestr(WEIGHTS, b"other")
    assert refused(archive, "'model.weights.h5' is in the archive twice")


@pytest.mark.parametrize("name", ["../up", "/root", "assets/../../up", "C:\\windows"])
def test_a_member_that_leads_out_of_the_archive_is_refused(archive, name):
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, b"")
    assert refused(archive, "names a place outside the archive")


def test_an_encrypted_member_is_refused(archive):
    overwrite_field(archive, FLAGS, b"\x01\x00")
    assert refused(archive, "'model.weights.h5' is encrypted")


def test_a_stored_member_of_two_sizes_is_refused(archive):
    overwrite_field(archive, SIZE, struct.pack("<L", 10**9))
    assert refused(archive, "'model.weights.h5' is stored, but gives two sizes")


def test_a_header_that_differs_from_the_table_of_contents_in_size_is_refused(archive):
    overwrite_field(archive, STORED, struct.pack("<L", 10), central=False)
    assert refused(archive, "'model.weights.h5' is described differently")


def test_a_header_that_differs_from_the_table_of_contents_in_name_is_refused(archive):
    overwrite_field(archive, NAME, b"MODEL", central=False)
    assert refused(archive, "'model.weights.h5' is described differently")


def test_a_name_that_ends_early_is_refused(archive):
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("odd_name", b"")
    archive.write_bytes(archive.read_bytes().replace(b"odd_name", b"odd\0name"))
    assert refused(archive, "'odd' has two names")


def test_a_member_inside_another_is_refused(tmp_path):
    hidden = zipfile.ZipInfo("hidden")
    hidden.file_size = hidden.compress_size = hidden.CRC = 0
    header = hidden.FileHeader()
    path = write_archive(tmp_path / "a.keras", weights_bytes() + header)
    with zipfile.ZipFile(path, "a") as file:
        hidden.header_offset = path.read_bytes().index(header)
        file.filelist.append(hidden)
        file._didModify = True
    assert refused(path, "'hidden' overlaps with another member")


def test_members_that_share_their_bytes_are_refused(tmp_path):
    members = [zeros(name, 1) for name in (WEIGHTS, "b", "c")]
    path = write_quoted(tmp_path / "a.keras", *members)
    assert refused(path, "'b' overlaps with another member")


def test_two_members_at_one_place_are_refused(tmp_path):
    member = stored(WEIGHTS, weights_bytes())
    body = member.header() + member.stored
    table = member.entry(0) + stored("alias", weights_bytes()).entry(0)
    path = write_archive_of(tmp_path / "a.keras", body, table, 2)
    assert refused(path, "'alias' is described differently")


def test_an_archive_in_the_place_of_the_weights_is_an_error(tmp_path, archive):
    path = write_archive(tmp_path / "outer.keras", archive.read_bytes())
    match = "not a Keras model file: it is a zip archive"
    assert refused(path, match, error=UnsupportedFileError)


@pytest.mark.parametrize("part", ["member", "table"])
def test_an_offset_outside_the_archive_is_an_error(tmp_path, part):
    member = stored(WEIGHTS, weights_bytes())
    body = member.header() + member.stored
    table = member.entry(2**31 if part == "member" else 0)
    path = write_archive_of(tmp_path / "a.keras", body, table, 1)
    if part == "table":
        path.write_bytes(path.read_bytes()[:-6] + struct.pack("<LH", 2**31, 0))
    assert refused(path, "cannot be read; it may be damaged", error=ModelFileError)


def test_a_member_that_reaches_into_the_table_of_contents_is_refused(archive):
    size = struct.pack("<L", len(weights_bytes()) + 20)
    overwrite_field(archive, STORED, size)
    overwrite_field(archive, SIZE, size)
    assert refused(archive, "reaches beyond the archive's members")


def test_a_member_that_inflates_too_well_is_refused(tmp_path):
    zeros = weights_bytes() + bytes(10_000_000)
    path = write_archive(tmp_path / "a.keras", zeros, method=zipfile.ZIP_DEFLATED)
    assert refused(path, "more than Limits.archive_inflation=200 times as much")


def test_a_member_that_inflates_to_too_much_is_refused(tmp_path):
    path = write_archive(tmp_path / "a.keras", method=zipfile.ZIP_DEFLATED)
    match = "'model.weights.h5' has .* bytes, more than the 1,000 allowed"
    assert refused(path, match, limits=Limits(inflated_bytes=1000))


def test_a_stored_member_can_have_any_size(archive):
    limits = Limits(inflated_bytes=1000)
    assert read_kernels(archive, limits=limits).keys() == {"c1/0"}


@pytest.mark.parametrize(("factor", "words"), [(0.5, "more"), (2, "fewer")])
def test_a_member_that_inflates_to_another_size_is_refused(tmp_path, factor, words):
    path = write_archive(tmp_path / "a.keras", method=zipfile.ZIP_DEFLATED)
    overwrite_field(path, SIZE, struct.pack("<L", int(len(weights_bytes()) * factor)))
    assert refused(path, f"inflates to {words} bytes than it claims")


def test_a_deflated_member_that_is_damaged_is_an_error(tmp_path):
    path = write_archive(tmp_path / "a.keras", method=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    start = data.rindex(WEIGHTS.encode(), 0, data.index(HEADERS[1])) + len(WEIGHTS)
    data[start : start + 100] = b"\xff" * 100
    path.write_bytes(data)
    assert refused(path, "cannot be read; it may be damaged", error=ModelFileError)


def test_an_unusual_compression_is_not_supported(tmp_path):
    path = write_archive(tmp_path / "a.keras", method=zipfile.ZIP_LZMA)
    assert refused(path, "compressed with method 14", error=UnsupportedFileError)


def test_too_many_members_are_refused(archive):
    match = "3 members, more than Limits.archive_members=2"
    assert refused(archive, match, limits=Limits(archive_members=2))


def test_a_table_of_contents_that_is_too_large_is_refused(archive):
    match = "its table of contents is too large"
    assert refused(archive, match, limits=Limits(archive_directory_bytes=100))


def test_large_archives_with_sizes_of_64_bits_are_read(tmp_path):
    path = tmp_path / "a.keras"
    with (
        zipfile.ZipFile(path, "w") as archive,
        archive.open(WEIGHTS, "w", force_zip64=True) as member,
    ):
        member.write(weights_bytes())
    assert read_kernels(path).keys() == {"c1/0"}


def test_an_archive_that_was_written_to_a_pipe_is_read(tmp_path):
    class Pipe:
        """A file that cannot seek, so that sizes follow the member's data."""

        def __init__(self, file):
            self.write, self.flush = file.write, file.flush

    path = tmp_path / "a.keras"
    with path.open("wb") as file:
        write_archive(Pipe(file))
    assert read_kernels(path).keys() == {"c1/0"}
