"""The members of a `.keras` archive, as streams of bytes that cannot do harm.

zipfile trusts what an archive says of itself, and re-reads a member from its start
for each backward seek. So members are checked here first, and a stored one is read
in place, through a window over the archive's own bytes.
"""

from __future__ import annotations

import io
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from typing import IO, cast

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.limits import Limits

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 0x1
_BLOCK = 2**20


class Archive:
    """A checked zip archive.

    Args:
        stream: The archive's bytes, seekable.
        name: What to call it in errors.
        limits: What it may ask for.

    Raises:
        ModelFileError: If it is damaged.
        UnsafeFileError: If it is made to mislead its reader.
    """

    def __init__(self, stream: IO[bytes], name: str, limits: Limits) -> None:
        self._stream, self._name, self._limits = stream, name, limits
        self._zip = zipfile.ZipFile(stream)
        entries = self._zip.infolist()
        self._refuse(
            len(entries) > limits.archive_entries, "holds too many entries", ""
        )
        names = [entry.filename for entry in entries]
        for entry in entries:
            self._check_entry(entry)
        self._refuse(len(set(names)) < len(names), "holds two members of one name", "")
        self._check_overlaps(entries)
        self.members = {entry.filename: entry for entry in entries}

    def read(self, member: str, most: int) -> bytes:
        """The whole content of a small member."""
        size = self.members[member].file_size
        self._refuse(size > most, f"has {size} bytes", member)
        return b"".join(self._inflated(self.members[member]))

    def open(self, member: str) -> IO[bytes]:
        """A member as a seekable stream, of which only what is asked for is read."""
        entry = self.members[member]
        if entry.compress_type == zipfile.ZIP_STORED:
            return cast("IO[bytes]", Window(self._stream, self._start(entry), entry))
        self._refuse(
            entry.file_size > self._limits.inflated_bytes,
            f"inflates to {entry.file_size} bytes",
            member,
        )
        inflated = tempfile.TemporaryFile()  # noqa: SIM115 (closed by its user)
        for block in self._inflated(entry):
            inflated.write(block)
        inflated.seek(0)
        return inflated

    def _inflated(self, entry: zipfile.ZipInfo) -> Iterator[bytes]:
        """The member's content; never more of it than the archive announced."""
        left = entry.file_size
        with self._zip.open(entry) as content:
            while block := content.read(min(_BLOCK, left + 1)):
                left -= len(block)
                self._refuse(left < 0, "is larger than it says", entry.filename)
                yield block
        if left:
            raise ModelFileError(
                f"{self._name!r} is damaged: {entry.filename!r} ends early."
            )

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Where a member's data begins: the local header tells, no other place."""
        self._stream.seek(entry.header_offset)
        header = self._stream.read(_LOCAL_HEADER.size)
        signature, *_, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        name = self._stream.read(name_size)
        honest = signature == _LOCAL_SIGNATURE and name == entry.orig_filename.encode()
        self._refuse(not honest, "has another header in place", entry.filename)
        return int(entry.header_offset + _LOCAL_HEADER.size + name_size + extra_size)

    def _check_entry(self, entry: zipfile.ZipInfo) -> None:
        name, parts = entry.filename, entry.filename.split("/")
        escapes = ".." in parts or name.startswith("/") or "\\" in name
        self._refuse(escapes, "leads out of the archive", name)
        self._refuse(bool(entry.flag_bits & _ENCRYPTED), "is encrypted", name)
        stored = entry.compress_type == zipfile.ZIP_STORED
        deflated = entry.compress_type == zipfile.ZIP_DEFLATED
        self._refuse(
            not (stored or deflated), "is compressed in a way Keras never uses", name
        )
        lies = stored and entry.compress_size != entry.file_size
        self._refuse(lies, "is stored, yet names two sizes", name)
        self._refuse(
            entry.file_size > self._limits.inflation * max(entry.compress_size, 1),
            f"says that {entry.compress_size} bytes inflate to {entry.file_size}",
            name,
        )

    def _check_overlaps(self, entries: list[zipfile.ZipInfo]) -> None:
        """Two members that share bytes are how a small archive makes a large bomb."""
        entries = sorted(entries, key=lambda entry: entry.header_offset)
        for entry, following in pairwise(entries):
            end = entry.header_offset + _LOCAL_HEADER.size + entry.compress_size
            self._refuse(
                end > following.header_offset, "overlaps another member", entry.filename
            )

    def _refuse(self, condition: bool, why: str, member: str) -> None:
        if condition:
            subject = f"its member {member!r} {why}" if member else f"it {why}"
            raise UnsafeFileError(
                f"{self._name!r} is refused: {subject}. An archive that Keras wrote "
                "does not; ask its publisher for one."
            )


class Window(io.RawIOBase):
    """A stored member of an archive, read in place.

    Args:
        stream: The archive's bytes.
        start: Where the member's data begins.
        entry: The member.
    """

    def __init__(self, stream: IO[bytes], start: int, entry: zipfile.ZipInfo) -> None:
        self._stream, self._start, self._size = stream, start, entry.file_size
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position within the member."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position within the member."""
        origin = {io.SEEK_CUR: self._position, io.SEEK_END: self._size}.get(whence, 0)
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads what is left of the member, at most what fits."""
        size = max(0, min(len(buffer), self._size - self._position))
        self._stream.seek(self._start + self._position)
        block = self._stream.read(size)
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)
