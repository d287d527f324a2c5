"""Zip archives that `zipfile` would not write."""

import struct
import zlib
from dataclasses import dataclass
from zipfile import ZIP_DEFLATED, ZIP_STORED


@dataclass(frozen=True)
class Member:
    """The stored bytes of a member, and the claims of its headers.

    Attributes:
        name: Name.
        stored: Bytes in the archive.
        size: Claimed size.
        method: Claimed compression method.
    """

    name: str
    stored: bytes
    size: int
    method: int = ZIP_DEFLATED

    def _claims(self):
        claims = (self.method, 0, 0, 0, len(self.stored), self.size, len(self.name), 0)
        return struct.pack("<HHHLLLHH", *claims)

    def header(self):
        """Returns the header in front of the member."""
        return b"PK\x03\x04\x14\0\0\0" + self._claims() + self.name.encode()

    def entry(self, offset):
        """Returns the entry in the table of contents of a member at an offset."""
        start = b"PK\x01\x02\x14\0\x14\0\0\0" + self._claims()
        return start + struct.pack("<HHHLL", 0, 0, 0, 0, offset) + self.name.encode()


def stored(name, data):
    """Returns a member that is not compressed."""
    return Member(name, data, len(data), ZIP_STORED)


def zeros(name, mebibytes, within=b""):
    """Returns a member of some bytes and many zeros, deflated as far as possible."""
    size = len(within) + mebibytes * 2**20
    return Member(name, deflated_zeros(mebibytes, within), size)


def deflated_zeros(mebibytes, within=b"", form=-zlib.MAX_WBITS):
    """Returns some bytes and many zeros, deflated; deflates only one MiB of zeros."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, form)
    start = deflate.compress(within) + deflate.flush(zlib.Z_FULL_FLUSH)
    # After a full flush, the same zeros become the same bytes.
    again = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return start + again * mebibytes + deflate.flush()


def write_members(path, *members):
    """Writes an archive of consecutive members; returns its path."""
    body, table = bytearray(), bytearray()
    for member in members:
        table += member.entry(len(body))
        body += member.header() + member.stored
    return write_archive_of(path, bytes(body), bytes(table), len(members))


def write_archive_of(path, body, table, count):
    """Writes an archive from its members and table of contents; returns its path."""
    end = struct.pack("<4H2LH", 0, 0, count, count, len(table), len(body), 0)
    path.write_bytes(body + table + b"PK\x05\x06" + end)
    return path


def write_quoted(path, *members):
    """Writes an archive whose members share their compressed bytes.

    Each member starts with a deflate block that quotes the header of the next member.
    The compressed bytes of the last member, the kernel, therefore end every member
    (Fifield, "A better zip bomb", 2019).
    """
    *outer, kernel = members
    parts, tail, size = [kernel], kernel.header() + kernel.stored, kernel.size
    for member in reversed(outer):
        header = parts[0].header()
        quote = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF)
        size += len(header)
        parts.insert(0, Member(member.name, quote + tail, size))
        tail = parts[0].header() + quote + tail
    table, offset = b"", 0
    for part in parts:
        table += part.entry(offset)
        offset += len(part.header()) + 5
    return write_archive_of(path, tail, table, len(parts))
