"""Errors that keras_wm raises besides `ValueError` and `TypeError`.

There are three families: `ModelFileError` for model files, `KeyFileError` for key files
and `ClaimError` for claims. All errors are subclasses of `ValueError`, so
`except ValueError` catches them.
"""

from __future__ import annotations


class ModelFileError(ValueError):
    """A model file cannot be read: it is missing, damaged or not a model.

    The base class of all errors about model files. The message names the file and, if
    possible, the array in it.
    """


class UnsafeFileError(ModelFileError):
    """A model file was rejected because reading it could do harm.

    Examples are a zip bomb, a link out of the file, or an array that is larger than
    `Limits` allows. If the file can be trusted, raise the limit that the message names.
    """


class UnsupportedFileError(ModelFileError):
    """A file is not a Keras model, or its format is not supported."""


class LayerNotFoundError(ModelFileError):
    """No layer of the model has the given name. The message lists its layers."""


class KeyFileError(ValueError):
    """A key file cannot be read: it is damaged, tampered with or too new."""


class WrongPassphraseError(KeyFileError):
    """The passphrase of an encrypted key file is missing or wrong."""


class ClaimError(ValueError):
    """A claim cannot be read or made, is not dated, or does not fit a key or model."""


class AlignmentError(ValueError):
    """The suspect model cannot be aligned with the reference model.

    Usually their architectures differ. The message says which part does not match.
    """
