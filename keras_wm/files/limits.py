"""How much a model file may ask of the machine that reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a model file may not exceed; beyond it, it is refused as unsafe.

    The defaults are far above what Keras writes, and keep a file that is made to do
    harm below 500 MB of memory and 5 seconds. Raise one only for a file from
    somebody you trust.

    Attributes:
        array_bytes: Size of one array when it is read.
        inflation: Size of a compressed array, in bytes stored. Deflate cannot
            exceed 1032.
        unpacked_bytes: Size of one compressed array when it is read.
        objects: Groups and arrays in an HDF5 file, without the optimizer's.
        children: Members of one HDF5 group.
        depth: Groups within groups.
        chunks: Chunks of one array.
        chunk_bytes: Size of one chunk.
        name_chars: Length of a name, and of a path in an HDF5 file.
        listing_bytes: Bytes of an HDF5 file that are read before any array is.
        archive_members: Members of a `.keras` archive.
        archive_directory_bytes: Size of the archive's table of contents.
        archive_inflation: Size of a compressed archive member, in bytes stored.
        inflated_bytes: Size of a compressed archive member when it is inflated,
            to a temporary file.
        config_bytes: Size of `config.json`.
    """

    array_bytes: int = 2 * 1024**3
    inflation: int = 1100
    unpacked_bytes: int = 256 * 1024**2
    objects: int = 45_000
    children: int = 20_000
    depth: int = 64
    chunks: int = 100_000
    chunk_bytes: int = 16 * 1024**2
    name_chars: int = 1024
    listing_bytes: int = 128 * 1024**2
    archive_members: int = 10_000
    archive_directory_bytes: int = 4 * 1024**2
    archive_inflation: int = 200
    inflated_bytes: int = 1024**3
    config_bytes: int = 10 * 1024**2


DEFAULT_LIMITS = Limits()
