"""What keras_wm raises beyond `ValueError` and `TypeError`.

One family a room: `ModelFileError` for a model file, `KeyFileError` for a key
file. Both are `ValueError`s, so that a caller who does not care about the
difference need not know these names.
"""

from __future__ import annotations


class ModelFileError(ValueError):
    """A model file that cannot be read: missing, damaged, or not a model."""


class UnsafeFileError(ModelFileError):
    """A model file that is refused, because reading it could do harm."""


class UnsupportedFileError(ModelFileError):
    """A file that is not a Keras model, or a kind of one that is not read."""


class LayerNotFoundError(ModelFileError):
    """A layer was named that the model does not have, or has more than once."""


class KeyFileError(ValueError):
    """A key file that cannot be read: damaged, tampered with, or too new."""


class WrongPassphraseError(KeyFileError):
    """An encrypted key file and a passphrase that does not open it."""


class AlignmentError(ValueError):
    """Two networks are not of one architecture, so that neither explains the other."""
