"""The HDF5 files that the weights of one model are spread over; mostly it is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import h5py

from keras_wm.errors import UnsafeFileError
from keras_wm.files.hdf5.array import StoredArray, StoredArrays
from keras_wm.files.hdf5.file import BoundedFile
from keras_wm.files.hdf5.walk import walk
from keras_wm.files.limits import Limits
from keras_wm.files.storage.source import naming_errors
from keras_wm.utils.text import printable


class Shard:
    """An open HDF5 file that holds all of a model's weights, or some.

    Args:
        file: The HDF5 file.
        size: Its size in bytes.
        limits: What the file may ask of this machine.
        name: Its name; empty where it is the only one.
    """

    def __init__(
        self, file: BoundedFile, size: int, limits: Limits, name: str = ""
    ) -> None:
        self.file = file
        self._arrays = StoredArrays(size, limits)
        self._name = name

    def find(self, dataset: h5py.Dataset, path: str) -> StoredArray | None:
        """A dataset as an array of numbers; see `StoredArrays.find`."""
        where = f"{self._name}/{path}" if self._name else path
        return self._arrays.find(dataset, where)

    def blamed(self) -> AbstractContextManager[None]:
        """Names the shard in every error."""
        return naming_errors(self._name) if self._name else nullcontext()


def walk_shards(
    shards: Sequence[Shard], limits: Limits, skip: Callable[[str], bool]
) -> Iterator[tuple[Shard, str, h5py.Group | h5py.Dataset]]:
    """The groups and datasets of all shards; see `walk`.

    Args:
        shards: The shards.
        limits: What they may ask of this machine together.
        skip: Whether what is in the group of a path is not wanted.

    Yields:
        The shard, the path of an object in it, and the object. A group may be in
        several shards.

    Raises:
        UnsafeFileError: If a dataset is in several shards, or there are too many
            objects, or for what `walk` refuses.
    """
    objects = 0
    seen: set[str] = set()
    for shard in shards:
        with shard.blamed():
            for path, found in walk(shard.file, limits, skip):
                objects += 1
                if objects > limits.objects:
                    raise UnsafeFileError(
                        f"the shards have more objects together than "
                        f"Limits.objects={limits.objects:,}."
                    )
                if isinstance(found, h5py.Dataset):
                    if path in seen:
                        raise UnsafeFileError(
                            f"'{printable(path)}' is in another shard, too. "
                            "Keras writes no such shards: do not use them."
                        )
                    seen.add(path)
                yield shard, path, found
