"""Number of processor cores."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Returns the number of cores that this process can use.

    It can be smaller than the number of cores of the machine.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
