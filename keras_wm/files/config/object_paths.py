"""What the path to an object in a model tells: `layers/dense_1/lora`."""

from __future__ import annotations

from collections.abc import Mapping

_LISTS = ("layers", "_layer_checkpoint_dependencies")


def is_state(owner: str) -> bool:
    """Whether an object is an optimizer or a metric, of the model or within it."""
    parts = owner.split("/")
    attributes = (
        part
        for holder, part in zip(["", *parts], parts, strict=False)
        if holder not in _LISTS
    )
    return any(
        part in ("optimizer", "metrics") or part.endswith("_optimizer")
        for part in attributes
    )


def is_list(path: str) -> bool:
    """Whether a path leads to the list of a model's layers."""
    return path.rpartition("/")[2] in _LISTS


def layer_name(owner: str, names: Mapping[str, str | None]) -> str:
    """The names of the objects on the way to a variable.

    Groups without `vars` are lists, such as `layers`, which users do not see.
    """
    parts = owner.split("/")
    paths = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    named = [path for path in paths if path in names]
    return "/".join(names[path] or path.rpartition("/")[2] for path in named)
