"""What experiments there are."""

from __future__ import annotations

from collections.abc import Sequence

from keras_wm.experiments import (
    attacks,
    choices,
    embedding,
    further_training,
    without_training,
)
from keras_wm.experiments.experiment import Experiment

ALL = "all"
EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        embedding.EXPERIMENT,
        further_training.FINE_TUNING,
        further_training.DISTILLATION,
        choices.CAPACITY,
        choices.LOCATION,
        choices.STRENGTH,
        without_training.EXPERIMENT,
        attacks.FINE_TUNING,
        attacks.PRUNING,
        attacks.OVERWRITING,
        attacks.DISTILLATION,
    )
}


def experiments_named(name: str) -> Sequence[Experiment]:
    """The experiment of that name, or with `"all"` every one.

    Raises:
        ValueError: If there is none.
    """
    if name == ALL:
        return list(EXPERIMENTS.values())
    if name not in EXPERIMENTS:
        raise ValueError(
            f"Expected one of {', '.join([*EXPERIMENTS, ALL])}. Received: {name!r}"
        )
    return [EXPERIMENTS[name]]
