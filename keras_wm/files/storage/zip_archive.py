"""Members of a hostile zip archive, opened without extracting the archive."""

from __future__ import annotations

import struct
import tempfile
import zlib
from contextlib import ExitStack
from typing import BinaryIO, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files.limits import Limits, vet_limit
from keras_wm.files.storage.source import Source, as_source, vet_size
from keras_wm.files.storage.streams import Window
from keras_wm.utils.text import printable

ZIP_MAGIC = b"PK\x03\x04"

# Layouts and constants of the ZIP specification (PKWARE APPNOTE.TXT).
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_ZIP64_SIZES = struct.Struct("<2H2Q")
_ZIP64_KIND = 1
# In place of a size that is in the ZIP64 field.
_IN_ZIP64 = 0xFFFFFFFF
# Flags: traditional encryption, strong encryption, masked local headers.
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
# Flag: the sizes are written after the member's data.
_SIZES_FOLLOW = 0x0008
_UTF8 = 0x0800
_COPY_BYTES = 1024**2


class Archive:
    """A zip archive as a `Bundle`, whose members are opened as seekable files.

    Args:
        source: The open archive.
        stack: Closes the opened members.
    """

    def __init__(self, source: Source, stack: ExitStack) -> None:
        self.limits = source.limits
        self._source = source
        self._stack = stack
        self._inflatable_bytes = source.limits.inflated_bytes
        budget = source.limits.archive_directory_bytes
        over_budget = "its table of contents is too large."
        window = Window(source.file, 0, source.size, budget, over_budget)
        with ZipFile(cast(BinaryIO, window)) as directory:
            self._entries = directory.infolist()
            self._end = directory.start_dir
        self._members: dict[str, tuple[ZipInfo, int]] = {}

    @property
    def names(self) -> list[str]:
        """The members' names, in the order of the table of contents."""
        return [entry.filename for entry in self._entries]

    def vet(self) -> None:
        """Compares the table of contents with the archive and checks every member.

        Raises:
            UnsafeFileError: If two members share a name or bytes, or if a member is
                encrypted, has a path outside the archive, or has a local header
                that contradicts the table of contents.
        """
        count = len(self._entries)
        problem = f"the archive has {count:,} members, more"
        vet_limit(self.limits, "archive_members", count, problem)
        end = 0
        for entry in sorted(self._entries, key=lambda entry: entry.header_offset):
            if entry.filename in self._members:
                raise _unsafe(entry, "is in the archive twice")
            _vet_entry(entry)
            start = self._vet_local_header(entry)
            if entry.header_offset < end:
                raise _unsafe(entry, "overlaps with another member")
            end = start + entry.compress_size
            if end > self._end:
                raise _unsafe(entry, "reaches beyond the archive's members")
            self._members[entry.filename] = entry, start

    def open(self, name: str, max_bytes: int | None = None) -> Source:
        """Opens a member; requires that `vet` has been called. See `Bundle.open`.

        A stored member is read in the archive, and a deflated one is inflated to a
        temporary file.

        Raises:
            UnsafeFileError: If the member inflates to more bytes than it should.
            UnsupportedFileError: If it is compressed with an unusual method.
        """
        if name not in self._members:
            raise ModelFileError(f"there is no member '{printable(name)}'.")
        entry, start = self._members[name]
        vet_size(name, entry.file_size, max_bytes)
        window = Window(self._source.file, start, entry.compress_size)
        if entry.compress_type == ZIP_STORED:
            return as_source(cast(BinaryIO, window), self.limits, self)
        if entry.compress_type == ZIP_DEFLATED:
            vet_size(name, entry.file_size, self._inflatable_bytes)
            self._inflatable_bytes -= entry.file_size
            _vet_inflation(entry, self.limits)
            file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
            self._stack.enter_context(file)
            _inflate(entry, window, file)
            return as_source(file, self.limits, self)
        raise UnsupportedFileError(
            f"member '{printable(name)}' is compressed with method "
            f"{entry.compress_type}. Zip the model again, stored or deflated."
        )

    def _vet_local_header(self, entry: ZipInfo) -> int:
        """Checks the header in front of a member, and returns where its data start."""
        file = self._source.file
        file.seek(entry.header_offset)
        header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        magic, _, flags, method, _, _, _, packed, size, name_bytes, extra_bytes = header
        name = file.read(name_bytes).decode("utf-8" if flags & _UTF8 else "cp437")
        extra = file.read(extra_bytes)
        if _IN_ZIP64 in (packed, size):
            size, packed = _zip64_sizes(extra)
        if flags & _SIZES_FOLLOW and packed == size == 0:
            packed, size = entry.compress_size, entry.file_size
        expected = (
            ZIP_MAGIC,
            entry.orig_filename,
            entry.compress_type,
            entry.flag_bits & _ENCRYPTED,
            entry.compress_size,
            entry.file_size,
        )
        if (magic, name, method, flags & _ENCRYPTED, packed, size) != expected:
            raise _unsafe(
                entry, "is described differently in the archive's table of contents"
            )
        return int(file.tell())


def _vet_entry(entry: ZipInfo) -> None:
    name = entry.orig_filename
    if name != entry.filename:
        raise _unsafe(entry, "has two names")
    if name.startswith("/") or ".." in name.split("/") or "\\" in name:
        raise _unsafe(entry, "names a place outside the archive")
    if entry.flag_bits & _ENCRYPTED:
        raise _unsafe(entry, "is encrypted")
    if entry.compress_type == ZIP_STORED and entry.compress_size != entry.file_size:
        raise _unsafe(entry, "is stored, but gives two sizes")


def _vet_inflation(entry: ZipInfo, limits: Limits) -> None:
    if entry.file_size > limits.archive_inflation * entry.compress_size:
        raise UnsafeFileError(
            f"member '{printable(entry.filename)}' inflates {entry.compress_size:,} "
            f"bytes to {entry.file_size:,}, more than "
            f"Limits.archive_inflation={limits.archive_inflation} times as much."
        )


def _inflate(entry: ZipInfo, window: Window, file: BinaryIO) -> None:
    """Inflates a member into a file, up to the size in the table of contents."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    left = entry.file_size
    while not inflater.eof:
        packed = inflater.unconsumed_tail or window.read(_COPY_BYTES)
        data = inflater.decompress(packed, min(left + 1, _COPY_BYTES))
        left -= len(data)
        if left < 0:
            raise _unsafe(entry, "inflates to more bytes than it claims")
        if not packed and not data and not inflater.eof:
            raise ModelFileError(f"member '{printable(entry.filename)}' is truncated.")
        file.write(data)
    if left:
        raise _unsafe(entry, "inflates to fewer bytes than it claims")
    file.seek(0)


def _zip64_sizes(extra: bytes) -> tuple[int, int]:
    """Returns a member's size and packed size from the extra field of its header."""
    while len(extra) >= _ZIP64_SIZES.size:
        kind, length, size, packed = _ZIP64_SIZES.unpack_from(extra)
        if kind == _ZIP64_KIND:
            return size, packed
        extra = extra[4 + length :]
    raise ModelFileError("a member's size is missing.")


def _unsafe(entry: ZipInfo, problem: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"member '{printable(entry.filename)}' {problem}. "
        "Keras writes no such archive: do not use this file."
    )
