"""Packages whose public names are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attach(
    package: str,
    names: Mapping[str, Sequence[str]],
    subpackages: Sequence[str] = (),
    before: Callable[[], None] = lambda: None,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes the `__getattr__` and `__dir__` of a lazy package (PEP 562).

    Type checkers do not see these names, so the package also imports them under
    `if TYPE_CHECKING:`.

    Args:
        package: Full name of the package.
        names: Public names by the module that defines them, relative to the package.
        subpackages: Modules and packages that are attributes themselves.
        before: Called before each import.

    Returns:
        The functions `__getattr__` and `__dir__`.

    Example:

    ```python
    __getattr__, __dir__ = attach(__name__, {"limits": ["Limits"]})
    ```
    """
    homes = {name: module for module, values in names.items() for name in values}

    def get(name: str) -> Any:
        if name in subpackages:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        before()
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        # The next access finds the name without this function.
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted(sys.modules[package].__all__)
