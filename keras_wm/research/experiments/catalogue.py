"""The catalogue of experiments, and the suites that run several of them."""

from __future__ import annotations

from collections.abc import Sequence

from keras_wm.research.experiments.experiment import Experiment
from keras_wm.research.experiments.studies import (
    capacity_location_strength,
    changed_layers,
    covertness,
    embedding,
    forging,
    papers_attacks,
    recipients,
    resistance,
    without_training,
)

# The experiments of each suite, by the suite's name.
SUITES: dict[str, tuple[Experiment, ...]] = {
    # The experiments of the papers.
    "all": (
        embedding.EMBEDDING,
        embedding.FINE_TUNING,
        embedding.DISTILLATION,
        capacity_location_strength.CAPACITY,
        capacity_location_strength.LOCATION,
        capacity_location_strength.STRENGTH,
        without_training.EXPERIMENT,
        papers_attacks.FINE_TUNING,
        papers_attacks.PRUNING,
        papers_attacks.OVERWRITING,
        papers_attacks.DISTILLATION,
    ),
    # Tests against the attacks that were published after the papers.
    "robustness": (
        covertness.EXPERIMENT,
        resistance.EXPERIMENT,
        changed_layers.PLAIN_HOST,
        changed_layers.SEVERAL_LAYERS,
        forging.EXPERIMENT,
        recipients.EXPERIMENT,
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
