"""What experiments there are."""

from __future__ import annotations

from collections.abc import Sequence

from keras_wm.research.experiments.experiment import Experiment
from keras_wm.research.experiments.studies import (
    capacity_location_strength as choices,
)
from keras_wm.research.experiments.studies import (
    covertness,
    embedding,
    plain_host,
    resistance,
    several_layers,
    without_training,
)
from keras_wm.research.experiments.studies import (
    fine_tuning_and_distilling as further_training,
)
from keras_wm.research.experiments.studies import (
    forging_and_recipients as ownership,
)
from keras_wm.research.experiments.studies import (
    papers_attacks as attacks,
)

# Experiments that are done together, by the name of all of them.
SUITES: dict[str, tuple[Experiment, ...]] = {
    # The papers' own.
    "all": (
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
    ),
    # What was published against such marks since.
    "robustness": (
        covertness.EXPERIMENT,
        resistance.EXPERIMENT,
        plain_host.EXPERIMENT,
        several_layers.EXPERIMENT,
        ownership.FORGING,
        ownership.RECIPIENTS,
    ),
}
EXPERIMENTS = {
    experiment.name: experiment for suite in SUITES.values() for experiment in suite
}


def experiments_named(name: str) -> Sequence[Experiment]:
    """The experiments of a suite, or the one of that name.

    Raises:
        ValueError: If there is none.
    """
    if name in SUITES:
        return SUITES[name]
    if name not in EXPERIMENTS:
        raise ValueError(
            f"Expected one of {', '.join([*EXPERIMENTS, *SUITES])}. Received: {name!r}"
        )
    return [EXPERIMENTS[name]]
