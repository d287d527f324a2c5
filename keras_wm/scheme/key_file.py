"""Reading and writing key files: versioned JSON, optionally encrypted.

Only the owner can read a key file (mode 0600), and it is written atomically. The format
is specified in docs/key.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from keras_wm.errors import KeyFileError, WrongPassphraseError
from keras_wm.scheme.secret import Secret
from keras_wm.utils.atomic import atomic_write

FORMAT = "keras_wm key"
VERSION = 2
# The file of an explicit key contains a whole projection matrix.
_MAX_BYTES = 512 * 2**20
# scrypt takes 128 n r bytes of memory: 64 MB for new files, 256 MB at most.
_SCRYPT = {"n": 2**16, "r": 8, "p": 1}
_MAX_SCRYPT_MEMORY = 2**28

# The fields of a key. The secret is a `Secret` in memory and hexadecimal in the file.
Payload = dict[str, Any]


def write_key(
    path: str | os.PathLike[str],
    payload: Payload,
    passphrase: str | None,
    overwrite: bool,
) -> None:
    """Writes a key file. If this fails, no partial file is left.

    Args:
        path: Path of the new file.
        payload: The fields of the key.
        passphrase: Passphrase to encrypt the file with, or `None`.
        overwrite: Whether to replace an existing file.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        ImportError: If a passphrase is given and `cryptography` is not installed.
    """
    content: Payload = {"format": FORMAT, "version": VERSION}
    if passphrase is None:
        content["key"] = payload
    else:
        content["encrypted"] = _encrypt(payload, passphrase)
    content["checksum"] = checksum(content)
    write_private(Path(path), content, overwrite)


def write_private(path: Path, content: Payload, overwrite: bool) -> None:
    """Writes plain values as JSON to a file that only its owner can read.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
    """
    with atomic_write(path, overwrite) as temporary:
        # The file is created with mode 0600. If the mode were changed afterwards,
        # others could open the file before.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, default=_reveal_secret)
            file.write("\n")


def checksum(content: Payload) -> str:
    """Returns SHA-256 of plain values, 64 hexadecimal digits."""
    return hashlib.sha256(payload_to_json(content).encode()).hexdigest()


def read_key(path: str | os.PathLike[str], passphrase: str | None) -> Payload:
    """Reads a key file.

    Args:
        path: Path of the file.
        passphrase: Passphrase that the file was encrypted with, or `None`.

    Returns:
        The fields of the key.

    Raises:
        KeyFileError: If the file is missing, damaged, tampered with, not a key file, or
            was written by a newer version.
        WrongPassphraseError: If the file is encrypted and the passphrase is missing or
            wrong.
    """
    name = os.fspath(path)
    content = _parse(name)
    if content.get("format") != FORMAT:
        raise KeyFileError(f"{name!r} is not a keras_wm key file.")
    version = content.get("version")
    if version != VERSION:
        raise KeyFileError(
            f"{name!r} is a key file of version {version!r}. This keras_wm reads "
            f"version {VERSION}. "
            + ("Make a new key." if version == 1 else "Upgrade keras_wm to read it.")
        )
    if content.pop("checksum", None) != checksum(content):
        raise KeyFileError(
            f"{name!r} was changed after it was written: its checksum does not match. "
            "Restore the key file from a copy."
        )
    if "encrypted" in content:
        return _decrypt(name, content["encrypted"], passphrase)
    if passphrase is not None:
        raise WrongPassphraseError(
            f"{name!r} is not encrypted, but a passphrase was given. "
            "Load it without one."
        )
    return _object(name, content.get("key"))


def payload_to_json(payload: Payload) -> str:
    """Returns a payload as text that contains the secret.

    Equal payloads give equal texts.
    """
    return json.dumps(
        payload, sort_keys=True, separators=(",", ":"), default=_reveal_secret
    )


def payload_from_json(text: str | bytes) -> Any:
    """Returns the payload from the text of `payload_to_json`."""
    return json.loads(text, object_hook=_hide_secret)


def _parse(name: str) -> Payload:
    try:
        if Path(name).stat().st_size > _MAX_BYTES:
            raise KeyFileError(f"{name!r} is too large for a key file.")
        data = Path(name).read_bytes()
    except OSError as error:
        raise KeyFileError(
            f"Cannot read the key file {name!r}: {error.strerror}."
        ) from error
    content = _from_json(data)
    is_key_file = FORMAT.encode() in data
    del data  # It contains the secret, and a traceback may show local variables.
    if content is None and is_key_file:
        raise KeyFileError(
            f"{name!r} is a damaged or truncated key file. Restore it from a copy."
        )
    return _object(name, content)


def _from_json(data: bytes) -> Any:
    """Returns the parsed JSON with its secret hidden, or None if it is not valid."""
    try:
        return payload_from_json(data)
    except (TypeError, ValueError, RecursionError):
        return None


def _hide_secret(value: Payload) -> Payload:
    if "secret" in value:
        value["secret"] = Secret(bytes.fromhex(value["secret"]))
    return value


def _reveal_secret(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"A key file cannot contain a {type(value).__name__}.")


def _object(name: str, value: Any) -> Payload:
    if not isinstance(value, dict):
        raise KeyFileError(f"{name!r} is not a keras_wm key file.")
    return value


def _encrypt(payload: Payload, passphrase: str) -> Payload:
    salt, nonce = os.urandom(16), os.urandom(12)
    header = {"kdf": "scrypt", **_SCRYPT, "cipher": "AES-256-GCM"}
    sealed = _cipher(passphrase, salt, _SCRYPT).encrypt(
        nonce, payload_to_json(payload).encode(), payload_to_json(header).encode()
    )
    binary = {"salt": salt, "nonce": nonce, "sealed": sealed}
    texts = {name: base64.b64encode(value).decode() for name, value in binary.items()}
    return header | texts


def _decrypt(name: str, encrypted: Any, passphrase: str | None) -> Payload:
    if passphrase is None:
        raise WrongPassphraseError(
            f"The key file {name!r} is encrypted. Pass its passphrase."
        )
    fields = dict(_object(name, encrypted))
    try:
        salt, nonce, sealed = (
            base64.b64decode(fields.pop(field), validate=True)
            for field in ("salt", "nonce", "sealed")
        )
        cost = {parameter: int(fields[parameter]) for parameter in _SCRYPT}
        _check_parameters(**cost, nonce=nonce)
        cipher = _cipher(passphrase, salt, cost)
    except (KeyError, TypeError, ValueError) as error:
        raise KeyFileError(
            f"The encryption parameters of {name!r} cannot be used."
        ) from error
    from cryptography.exceptions import InvalidTag

    try:
        opened = cipher.decrypt(nonce, sealed, payload_to_json(fields).encode())
    except InvalidTag:
        raise WrongPassphraseError(
            f"The passphrase of the key file {name!r} is wrong."
        ) from None
    return _object(name, _from_json(opened))


def _check_parameters(n: int, r: int, p: int, nonce: bytes) -> None:
    """Raises ValueError if the file asks for too much memory or time."""
    if not (0 < 128 * n * r <= _MAX_SCRYPT_MEMORY and 0 < p <= 4 and len(nonce) == 12):
        raise ValueError(f"parameters out of range: n={n}, r={r}, p={p}")


def _cipher(passphrase: str, salt: bytes, cost: dict[str, int]) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ImportError(
            "A key file with a passphrase needs the package cryptography. "
            'Install it with: pip install "keras-wm[encrypt]"'
        ) from error
    derived = hashlib.scrypt(
        passphrase.encode(), salt=salt, **cost, maxmem=2 * _MAX_SCRYPT_MEMORY, dklen=32
    )
    return AESGCM(derived)
