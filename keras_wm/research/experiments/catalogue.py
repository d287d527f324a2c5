"""The catalogue of experiments, and the suites that run several of them."""

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

# The experiments of each suite, by the suite's name.
SUITES: dict[str, tuple[Experiment, ...]] = {
    # The experiments of the papers.
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
    # Tests against the attacks that were published after the papers.
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
    """Returns the experiments of a suite, or the single experiment with that name.

    Raises:
        ValueError: If no suite or experiment has that name.
    """
    if name in SUITES:
        return SUITES[name]
    if name not in EXPERIMENTS:
        raise ValueError(
            f"Expected one of {', '.join([*EXPERIMENTS, *SUITES])}. Received: {name!r}"
        )
    return [EXPERIMENTS[name]]
