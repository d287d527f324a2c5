"""How much a model file may ask of its reader."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds within which an honest model file stays.

    Attributes:
        array_bytes: The largest array that is read.
        inflation: How many bytes a stored byte may become. Deflate cannot do
            more than 1,032.
        objects: Groups and arrays in a file.
        depth: Groups within groups.
        config_bytes: The largest `config.json`.
        archive_entries: Members of an archive.
        inflated_bytes: The largest compressed member of an archive.
    """

    array_bytes: int = 2 * 2**30
    inflation: int = 1100
    objects: int = 200_000
    depth: int = 64
    config_bytes: int = 64 * 2**20
    archive_entries: int = 10_000
    inflated_bytes: int = 8 * 2**30


DEFAULT_LIMITS = Limits()
