"""How much a model file may ask of the machine that reads it."""

from __future__ import annotations

from dataclasses import dataclass, fields


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
        objects: Groups and arrays in a model's HDF5 files, without the optimizer's.
        children: Members of one HDF5 group.
        depth: Groups within groups.
        chunks: Chunks of one array.
        chunk_bytes: Size of one chunk.
        name_chars: Length of a name, and of a path in an HDF5 file.
        listing_bytes: Bytes of an HDF5 file that are read before any array is.
        archive_members: Members of a `.keras` archive.
        archive_directory_bytes: Size of the archive's table of contents.
        archive_inflation: Size of a compressed archive member, in bytes stored.
        inflated_bytes: Size of all compressed archive members that are inflated,
            to temporary files.
        config_bytes: Size of `config.json`, or of an index of shards.
        json_values: Values in such a file, or in the header of a safetensors file.
        header_bytes: Size of the header of a safetensors file.
        arrays: Arrays in a model's safetensors files.
        shards: Files that the weights of one model are spread over.
        search_entries: Entries of the projection, bits times weights of a filter,
            that a search of all kernels for one key may take.
        memory_bytes: In a sandbox, memory beside that of the array that is read.
        cpu_seconds: In a sandbox, processor time for listing what is in a file, and
            for reading an array, beside the time that its size explains.
        wall_seconds: In a sandbox, the time until an answer, with all waiting.
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
                    f"Expected a limit that is not negative. Received: "
                    f"{field.name}={value!r}"
                )


DEFAULT_LIMITS = Limits()
