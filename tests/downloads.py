"""A folder of downloaded files, some of them marked, that the tests scan."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import fixed_key
from tests.files.written import write_archive, write_endless, write_weights

STRANGER = fixed_key(64, owner="A stranger", secret=b"\x09" * 32)


@dataclass(frozen=True)
class Downloads:
    """A folder, the key of two of its files, and a key that marks none of them."""

    folder: Path
    key: Any
    stranger: Any
    marked: tuple[str, str]


def make_downloads(marked, folder):
    """Writes 2 marked, 2 unmarked and 3 unreadable models, and 2 other files."""
    (folder / "deep" / "down").mkdir(parents=True)
    shutil.copy(marked.files[".keras"], folder / "deep" / "a.keras")
    shutil.copy(marked.files[".h5"], folder / "deep" / "down" / "renamed.bin")
    noise = np.random.default_rng(7).normal(size=(60, 40)).astype("float32")
    write_weights(folder / "b.weights.h5", noise, name="noise")
    write_archive(folder / "c.keras")
    (folder / "cut.keras").write_bytes(marked.files[".keras"].read_bytes()[:9000])
    write_endless(folder / "endless.h5")
    write_weights(folder / "repacked.h5", noise, compression="lzf")
    (folder / "README.md").write_text("hello")
    (folder / "deep" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    paths = tuple(
        str(folder / "deep" / name) for name in ("a.keras", "down/renamed.bin")
    )
    return Downloads(folder, marked.key, STRANGER, paths)
