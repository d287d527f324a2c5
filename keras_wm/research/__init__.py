"""Research on watermarks: attacks, evaluation, experiments, and the data for them.

None of it is needed to mark a model or to verify a mark. Sub-packages are imported
when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_wm.utils.lazy import attach

__all__ = [
    "attacks",
    "datasets",
    "demo",
    "detectability",
    "evaluation",
    "experiments",
    "hosts",
]

if TYPE_CHECKING:
    from keras_wm.research import (
        attacks,
        datasets,
        demo,
        detectability,
        evaluation,
        experiments,
        hosts,
    )

__getattr__, __dir__ = attach(__name__, {}, subpackages=__all__)
