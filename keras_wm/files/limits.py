"""Limits on the resources that a model file can use."""

from __future__ import annotations

from dataclasses import dataclass, fields

from keras_wm.errors import UnsafeFileError


@dataclass(frozen=True)
class Limits:
    """Limits for model files; a file that exceeds one raises `UnsafeFileError`.

    The defaults are far above what Keras writes. They keep malicious files below
    500 MB of memory and 5 seconds. Raise a limit only for a file that you trust.

    Attributes:
        array_bytes: Size of an array that is read.
        inflation: Size of a compressed HDF5 array divided by its stored size. Deflate
            cannot exceed 1032.
        unpacked_bytes: Size of a compressed HDF5 array that is read.
        objects: Number of groups and arrays in a model's HDF5 files, excluding the
            optimizer's.
        children: Number of members of an HDF5 group.
        depth: Depth of nested HDF5 groups.
        chunks: Number of chunks of an HDF5 array.
        chunk_bytes: Size of a chunk.
        name_chars: Length of a name, and of a path in an HDF5 file.
        listing_bytes: Bytes read from an HDF5 file to list its arrays.
        archive_members: Number of members of a `.keras` archive.
        archive_directory_bytes: Size of the archive's table of contents.
        archive_inflation: Size of a compressed archive member divided by its stored
            size.
        inflated_bytes: Total size of the archive members that are inflated to
            temporary files.
        config_bytes: Size of `config.json`, or of an index of shards.
        json_values: Number of values in `config.json`, in an index of shards or in
            the header of a safetensors file.
        header_bytes: Size of the header of a safetensors file.
        arrays: Number of arrays in a model's safetensors files.
        shards: Number of files that hold the weights of one model.
        search_entries: Entries of the projection (bits times weights of a filter) in
            a search through all kernels for one key.
        memory_bytes: Memory of a sandbox, in addition to that of the array it reads.
        cpu_seconds: Processor time of a sandbox for listing a file or reading an
            array, in addition to the time that the array's size accounts for.
        wall_seconds: Total time until a sandbox answers, including waiting.
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
    json_values: int = 1024**2
    header_bytes: int = 32 * 1024**2
    arrays: int = 50_000
    shards: int = 512
    search_entries: int = 2**31
    memory_bytes: int = 384 * 1024**2
    cpu_seconds: int = 4
    wall_seconds: int = 300

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"Expected a number. Received: {field.name}={value!r}")
            if not value >= 0:
                raise ValueError(
                    f"Expected a non-negative limit. Received: {field.name}={value!r}"
                )


DEFAULT_LIMITS = Limits()


def vet_limit(limits: Limits, name: str, value: int, problem: str) -> None:
    """Raises UnsafeFileError if a file exceeds a limit.

    Args:
        limits: Limits on the resources that the file can use.
        name: Name of the limit, a field of `Limits`.
        value: Value of the file, which must not be larger than the limit.
        problem: Error message up to the word "than".
    """
    limit = getattr(limits, name)
    if value > limit:
        raise UnsafeFileError(
            f"{problem} than Limits.{name}={limit:,}. "
            "Raise the limit if you trust the file."
        )
