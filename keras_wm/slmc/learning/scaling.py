r"""Scaling of the effective model's error with its number of parameters.

A summary of the paper (arXiv:2310.13222) reports that the mean squared error is a power
law of the number of parameters, if the linear model and the model with one block are
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import exp, log
from typing import Any

from keras_wm.slmc.learning.online import Stage
from keras_wm.slmc.statistics import predicted_acceptance


@dataclass(frozen=True)
class Point:
    r"""Size and quality of one effective model.

    Attributes:
        seed: Random seed of the training.
        blocks: Number of attention blocks L.
        parameters: Number of parameters.
        variance: Variance of \(\delta = \ln W - \ln W_\mathrm{eff}\) in configurations
            that the model was not fitted to.
        variance_error: Standard error of the variance.
        acceptance: Acceptance rate of the model's proposals; NaN without sampling.
        acceptance_error: Standard error of the acceptance rate.
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
        """Acceptance rate that is predicted from the variance."""
        return predicted_acceptance(self.variance)

    @classmethod
    def from_stage(cls, seed: int, stage: Stage) -> Point:
        """Makes the point of one stage of a training."""
        return cls(
            seed,
            stage.blocks,
            stage.model.count_params(),
            stage.variance,
            stage.variance_error,
            stage.acceptance,
            stage.acceptance_error,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Point:
        """Makes a point of the result of `to_dict`."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Returns the values by name, for a file of JSON."""
        return asdict(self) | {"predicted": self.predicted}


@dataclass(frozen=True)
class PowerLaw:
    r"""Power law \(\mathrm{variance} = a \cdot \mathrm{parameters}^{b}\).

    Attributes:
        exponent: Exponent b, the slope of a straight line through the logarithms.
        error: Standard error of the exponent, from the points' distances to the line.
        factor: Factor a.
    """

    exponent: float
    error: float
    factor: float


def power_law(points: Sequence[Point], min_blocks: int = 0) -> PowerLaw:
    """Fits a power law to the variances of models of different sizes.

    Args:
        points: Models of all seeds.
        min_blocks: Number of blocks of the smallest model in the fit.

    Raises:
        ValueError: If fewer than three models or two sizes are left.
    """
    from scipy.stats import linregress

    kept = [point for point in points if point.blocks >= min_blocks]
    if len(kept) < 3 or len({point.parameters for point in kept}) < 2:
        raise ValueError(
            "Expected at least three models of at least two sizes. Received: "
            f"{len(kept)} models with {min_blocks} blocks or more. Train more models."
        )
    line = linregress(
        [log(point.parameters) for point in kept],
        [log(point.variance) for point in kept],
    )
    return PowerLaw(float(line.slope), float(line.stderr), exp(line.intercept))
