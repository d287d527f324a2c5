r"""How the variance of what an effective model misses falls with its parameters.

A summary of the paper (arXiv:2310.13222) reports a power law of the mean squared error,
without the linear model and the one of a single block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from math import exp, log
from typing import Any

from keras_wm.slmc.learning.online import Stage
from keras_wm.slmc.statistics import predicted_acceptance


@dataclass(frozen=True)
class Point:
    """One effective model.

    Attributes:
        seed: Of its training.
        blocks: L.
        parameters: How many it has.
        variance: Of ln W - ln W_eff, in configurations that it was not fitted to.
        variance_error: Its standard error.
        acceptance: Of its own proposals; NaN where it has not sampled.
        acceptance_error: Its standard error.
    """

    seed: int
    blocks: int
    parameters: int
    variance: float
    variance_error: float
    acceptance: float
    acceptance_error: float

    @property
    def predicted(self) -> float:
        """The acceptance that the variance predicts."""
        return predicted_acceptance(self.variance)

    @classmethod
    def from_dict(cls, numbers: dict[str, Any]) -> Point:
        """What `to_dict` gave."""
        return cls(**{each.name: numbers[each.name] for each in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """As numbers by name, as for a file of JSON."""
        return asdict(self) | {"predicted": self.predicted}


@dataclass(frozen=True)
class PowerLaw:
    r"""\(\mathrm{variance} \propto \mathrm{parameters}^{\mathrm{exponent}}\).

    Attributes:
        exponent: The slope of a straight line through the logarithms.
        error: Its standard error, by how far the points are from the line.
        factor: The variance that the line has at one parameter.
    """

    exponent: float
    error: float
    factor: float


def points(seed: int, stages: Iterable[Stage]) -> list[Point]:
    """What one training gave, a point for each number of blocks."""
    return [
        Point(
            seed,
            stage.blocks,
            stage.model.count_params(),
            stage.variance,
            stage.variance_error,
            stage.acceptance,
            stage.acceptance_error,
        )
        for stage in stages
    ]


def power_law(found: Sequence[Point], fewest_blocks: int = 0) -> PowerLaw:
    """Fits a power law to the models that have so many blocks or more.

    Args:
        found: The models of all seeds.
        fewest_blocks: L of the smallest that counts.

    Raises:
        ValueError: If fewer than three points or sizes are left.
    """
    from scipy.stats import linregress

    kept = [one for one in found if one.blocks >= fewest_blocks]
    if len(kept) < 3 or len({one.parameters for one in kept}) < 2:
        raise ValueError(
            "Expected three models or more, of two sizes or more. Received "
            f"{len(kept)} of {fewest_blocks} blocks or more. Train more of them."
        )
    line = linregress(
        [log(one.parameters) for one in kept], [log(one.variance) for one in kept]
    )
    return PowerLaw(float(line.slope), float(line.stderr), exp(line.intercept))
