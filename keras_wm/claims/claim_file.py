"""Reading and writing claim files, which docs/claim.md specifies.

A claim can come from another party. Nothing in it is used before it is validated.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_wm.claims.checks import unexpected
from keras_wm.claims.facts import PUBLIC_FACTS, ClaimedLayer, Stamp
from keras_wm.claims.model_digest import ModelDigest
from keras_wm.claims.recipients import RecipientsRoot
from keras_wm.errors import ClaimError, ModelFileError
from keras_wm.files.limits import DEFAULT_LIMITS
from keras_wm.files.storage.untrusted_json import parse_json
from keras_wm.utils.atomic import atomic_write
from keras_wm.utils.text import printable

FORMAT = "keras_wm claim"
VERSION = 1
_MOST_BYTES = 8 * 2**20
_FACTS = (
    *("key", "slots", "layers", "jointly", "model", "checkpoint", "recipients"),
    *("predecessor", "released", "nonce"),
)


def canonical(value: object) -> str:
    """Returns plain values as JSON whose bytes do not depend on the writer."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def write_claim(
    path: Path, facts: dict[str, object], stamps: tuple[Stamp, ...], overwrite: bool
) -> Path:
    """Writes a claim file, completely or not at all.

    Args:
        path: Path of the file.
        facts: The facts that the digest covers.
        stamps: Time stamps of the digest.
        overwrite: Whether to replace an existing file.

    Returns:
        The path.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "claim": facts,
        "stamps": [
            {
                "response": base64.b64encode(stamp.response).decode(),
                "renewal": stamp.renewal,
            }
            for stamp in stamps
        ],
    }
    with atomic_write(path, overwrite) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return path


@contextmanager
def read_claim(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Reads a claim file, and names it in the errors of the body.

    Args:
        path: Path of the file.

    Yields:
        The arguments of `Claim`. Their structure is that of a claim, their values have
        not been validated.

    Raises:
        ClaimError: If the file cannot be read or is not a claim.
    """
    name = printable(os.fspath(path), 1000)
    try:
        content = parse_json(_read(Path(path)), DEFAULT_LIMITS)
        yield _arguments(content)
    except OSError as error:
        raise ClaimError(f"Cannot read the claim {name!r}: {error.strerror}.") from None
    except (ClaimError, ModelFileError) as error:
        raise ClaimError(f"{name!r} is not a valid claim: {error}") from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ClaimError(f"it is larger than {_MOST_BYTES:,} bytes.")
    return data


def _arguments(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ClaimError("it is another kind of file.")
    if content.get("version") != VERSION:
        version = printable(repr(content.get("version")), 20)
        raise ClaimError(
            f"it has version {version}. This keras_wm reads version {VERSION}. "
            "Upgrade keras_wm to read it."
        )
    _members("file", content, ("format", "version", "claim", "stamps"))
    facts = _members("claim", content["claim"], _FACTS)
    layers = [
        _members("layer", layer, ("name", "slot", "shape"))
        for layer in _list("layers", facts["layers"])
    ]
    arguments = {
        **facts,
        **_members("key", facts["key"], PUBLIC_FACTS),
        "slots": tuple(_list("slots", facts["slots"])),
        "layers": tuple(
            ClaimedLayer(
                layer["name"], layer["slot"], tuple(_list("shape", layer["shape"]))
            )
            for layer in layers
        ),
        "model": _model_digest("model", facts["model"]),
        "stamps": tuple(map(_stamp, _list("stamps", content["stamps"]))),
    }
    if facts["checkpoint"] is not None:
        arguments["checkpoint"] = _model_digest("checkpoint", facts["checkpoint"])
    if facts["recipients"] is not None:
        members = _members("recipients", facts["recipients"], ("root", "number"))
        arguments["recipients"] = RecipientsRoot(**members)
    del arguments["key"]
    return arguments


def _members(name: str, value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns a JSON object; raises ClaimError unless it has exactly these names."""
    if not isinstance(value, dict) or value.keys() != set(names):
        raise unexpected(name, f"an object of {', '.join(names)}", value)
    return value


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise unexpected(name, "a list", value)
    return value


def _model_digest(name: str, value: Any) -> ModelDigest:
    return ModelDigest(**_members(name, value, ("weights", "file")))


def _stamp(value: Any) -> Stamp:
    fields = _members("stamp", value, ("response", "renewal"))
    try:
        response = base64.b64decode(fields["response"], validate=True)
    except (TypeError, ValueError):
        raise unexpected("response", "text in base64", fields["response"]) from None
    return Stamp(response, fields["renewal"])
