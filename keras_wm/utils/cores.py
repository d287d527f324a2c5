"""How many cores there are to work on."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The cores that this process may use, which may be fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
