"""Results that are kept in a file as they come, with the settings they belong to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keras_wm.utils.atomic import check_folder, replaced_whole

_OF, _FOUND = "of", "found"


def read_kept(path: Path, settings: dict[str, Any]) -> Any:
    """What an earlier call kept, if it was asked for the same.

    Args:
        path: A file of JSON, which need not be there yet.
        settings: What is asked for, as JSON has it.

    Returns:
        What was found, or `None` where there is no file.

    Raises:
        FileNotFoundError: If the folder is not there.
        ValueError: If the file holds something else.
    """
    check_folder(path)
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text("utf-8"))
        of, found = kept[_OF], kept[_FOUND]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{str(path)!r} holds no results to go on with. Choose another file, or "
            "delete it to begin anew."
        ) from error
    if of != settings:
        raise ValueError(
            f"{str(path)!r} holds what was found with other settings. Choose another "
            f"file, or delete it to begin anew.\nExpected: {settings}\nReceived: {of}"
        )
    return found


def keep(path: Path, settings: dict[str, Any], found: Any) -> None:
    """Writes the file whole, or not at all."""
    text = json.dumps({_OF: settings, _FOUND: found}, indent=1)
    with replaced_whole(path) as temporary:
        temporary.write_text(text, "utf-8")
