"""Alignments that are not exact, as controls: their false alarms must be seen."""

from __future__ import annotations

from collections.abc import Sequence

from keras_wm.alignment.aligner import Aligner
from keras_wm.alignment.similarity import balancing_factors
from keras_wm.research.alignment_trials.networks import (
    TESTED_KERNEL,
    Architecture,
    Weights,
)
from keras_wm.research.alignment_trials.outcomes import Path
from keras_wm.research.alignment_trials.trials import SIBLING, UNRELATED, Trial
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arrays import Floats


def control_paths(architecture: Architecture, trials: Sequence[Trial]) -> list[Path]:
    """Tests suspects without a mark in ways that `verify` avoids.

    Args:
        architecture: Architecture of all networks.
        trials: The trials.

    Returns:
        The outcomes if the aligned kernel is given the norms of the marked kernel,
        and if only the tested kernel is left out of the alignment.
    """
    norms, order = [], []
    for trial in trials:
        reference = trial.reference.arrays
        kernel = _aligned(architecture, reference, trial.suspects[SIBLING].arrays)
        factors = balancing_factors(reference[TESTED_KERNEL])
        norms.append(_log10_p(kernel / factors[-2] / factors[-1], trial.key))
        kernel = _aligned(architecture, reference, trial.suspects[UNRELATED].arrays)
        order.append(_log10_p(kernel, trial.key))
    paths = [Path(SIBLING, "control: norms of the reference", norms)]
    if list(architecture.slots.values()).count(0) > 1:
        paths.append(Path(UNRELATED, "control: one kernel held out", order))
    return paths


def _aligned(
    architecture: Architecture, reference: Weights, suspect: Weights
) -> Floats:
    aligner = Aligner(architecture.graph, reference, suspect)
    return aligner.align_without(TESTED_KERNEL).aligned(TESTED_KERNEL)


def _log10_p(kernel: Floats, key: WatermarkKey) -> float:
    return detect(kernel, key).log10_p
