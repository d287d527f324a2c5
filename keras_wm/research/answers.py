"""What a classifier's answers are: probabilities or logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.files.config.calls import calls_in

_PROBABLE = 1e-3


def answers_probabilities(model: Any, answers: NDArray[Any]) -> bool:
    """Whether a network's answers are probabilities already, and not logits.

    Args:
        model: The network, Functional or Sequential.
        answers: Its answers to some examples, shape `(N, classes)`, or `(N, 1)` of how
            much it is for the second of two classes.
    """
    if answers.shape[-1] == 1:
        # The logits of a network that has not learned much are between 0 and 1 too.
        return _ends_in_sigmoid(model)
    sums = answers.sum(axis=-1, dtype=np.float64)
    return bool(np.all(answers >= 0) and np.all(np.abs(sums - 1) < _PROBABLE))


def _ends_in_sigmoid(model: Any) -> bool:
    found = calls_in(model.get_config())
    if found is None:
        return False
    (last,) = (call for call in found.calls if call.output == found.outputs[0])
    return "sigmoid" in (last.config.get("activation"), last.kind.lower())
