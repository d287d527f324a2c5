"""Samples that `keras-wm slmc sample --spins` kept."""

from __future__ import annotations

from pathlib import Path

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.learning.fit import Samples
from keras_wm.slmc.samplers.chain import read_description, read_series


def read_samples(path: Path, model: DoubleExchange) -> Samples:
    """Configurations that `keras-wm slmc sample --spins` kept.

    Args:
        path: The file.
        model: What they have to be samples of.

    Raises:
        ValueError: If there are none in the file, or they are of another model.
    """
    series = read_series(path)
    if not {"spins", "log_weight"} <= series.keys():
        raise ValueError(
            f"{str(path)!r} holds no spins. Sample with --spins to keep them."
        )
    description, wanted = read_description(path), model.to_dict()
    of = {name: description[name] for name in wanted}
    if of != wanted:
        raise ValueError(
            f"{str(path)!r} holds samples of another model. Expected: {wanted}. "
            f"Received: {of}"
        )
    return Samples.of_chains(series["spins"], series["log_weight"])
