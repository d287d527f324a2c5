"""Files of real models with an added array that the model does not use."""

import io
import json
import zipfile

import h5py


def edit_archive(source, target, weights=None, config=None, members=None):
    """Writes a copy of a `.keras` file with changes; returns its path.

    Args:
        source: The `.keras` file.
        target: Path of the copy.
        weights: Changes the open HDF5 file of weights.
        config: Changes the parsed `config.json`.
        members: Further members of the archive, by name.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "model.weights.h5" and weights is not None:
                data = edit_hdf5(data, weights)
            if name == "config.json" and config is not None:
                parsed = json.loads(data)
                config(parsed)
                data = json.dumps(parsed).encode()
            new.writestr(name, data)
        for name, data in (members or {}).items():
            new.writestr(name, data)
    return target


def edit_hdf5(data, change):
    """Returns the bytes of an HDF5 file after a change of the open file."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "a") as file:
        change(file)
    return buffer.getvalue()


def adding(path, array):
    """Returns a change that adds an array to an HDF5 file."""
    return lambda file: file.create_dataset(path, data=array)
