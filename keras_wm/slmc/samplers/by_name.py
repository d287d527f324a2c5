"""A sampler by the name of its proposal."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.learning.online import Schedule, learn_linear
from keras_wm.slmc.models.effective_model import READOUT, on_lattice
from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.slmc.samplers.chain import (
    read_description,
)
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.metropolis import Metropolis
from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
from keras_wm.slmc.samplers.sampler import Sampler
from keras_wm.slmc.samplers.self_learning import SelfLearning

METROPOLIS, LINEAR = "metropolis", "linear"


# To learn a linear model by.
_FEWEST_CHAINS = 64


def sampler_by(
    by: str,
    model: DoubleExchange,
    chains: int,
    sweeps: int,
    seed: int,
    checkpoint: Path | None = None,
) -> Sampler:
    """Chains of an exact model, by the name of what proposes.

    Args:
        by: `"metropolis"`; `"linear"`, a heat bath of a linear model of all shells that
            is learned first; or a file of an effective model.
        model: What gives a configuration its weight.
        chains: How many chains.
        sweeps: How many sweeps make a proposal.
        seed: Of all that is random.
        checkpoint: Where the chains are kept. Of one that is there, a linear model is
            taken over.

    Raises:
        ValueError: If the file is none of an effective model.
    """
    if by == METROPOLIS:
        return Metropolis(model, chains, seed)
    if by != LINEAR:
        proposal = NeuralMetropolis(load_model(by, model), sweeps)
        return SelfLearning(model, proposal, chains, seed)
    if checkpoint is not None and checkpoint.exists():
        linear, spins = _kept_linear_model(checkpoint, model.lattice), None
    else:
        schedule = Schedule(chains=max(chains, _FEWEST_CHAINS), sweeps=sweeps)
        linear, learned = learn_linear(model, None, schedule, seed)
        spins = learned[:chains]
    return SelfLearning(model, HeatBath(linear, sweeps), chains, seed, spins)


def _kept_linear_model(checkpoint: Path, lattice: Lattice) -> LinearModel:
    """The linear model by which the chains of a checkpoint propose.

    Of other chains it is any, for to go on with them is refused when they run.
    """
    told = read_description(checkpoint)
    couplings = np.array(told.get("couplings", [0.0]))
    return LinearModel(
        lattice, couplings[: len(lattice.shells)], told.get("offset", 0.0)
    )


def load_model(path: str, model: DoubleExchange) -> keras.Model:
    """An effective model from a file, on the lattice of an exact one."""
    if not Path(path).is_file():
        raise ValueError(
            f"Expected {METROPOLIS!r}, {LINEAR!r} or a file of an effective model. "
            f"Received: {path!r}"
        )
    try:
        loaded = keras.saving.load_model(path)
    # Keras raises whatever its parts do of a damaged file.
    except (ValueError, KeyError, TypeError, OSError, BadZipFile) as error:
        raise ValueError(
            f"{path!r} is damaged, or not a model that Keras can load: {error}"
        ) from error
    if READOUT not in {layer.name for layer in loaded.layers}:
        raise ValueError(
            f"{path!r} is no effective model: it has no layer {READOUT!r}. Make one "
            "with `keras-wm slmc train`."
        )
    return on_lattice(loaded, model.lattice)
