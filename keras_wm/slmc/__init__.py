r"""Self-learning Monte Carlo of the two-dimensional double-exchange model.

Electrons hop on a square lattice and are coupled to a classical spin at each site. The
weight W(S) of a spin configuration S takes one diagonalisation. Self-learning Monte
Carlo proposes new configurations with a cheap effective model W_eff and accepts them
with an exact test, so that it samples W exactly. The effective model is a linear
Heisenberg model, or the equivariant Transformer of Nagai & Tomiya (2023,
arXiv:2306.11527) as Keras layers.

```python
import numpy as np
from keras_wm.slmc import (
    DoubleExchange, HeatBath, Schedule, SelfLearning, estimate, learn_linear, run,
    square_lattice,
)

model = DoubleExchange(square_lattice(4), beta=10.0)
linear, spins = learn_linear(model, shells=None, schedule=Schedule(64), seed=1)
chains = SelfLearning(model, HeatBath(linear), chains=64, seed=2, spins=spins)
series = run(chains, steps=200, thermalisation=20)
print(estimate(series["ms2"]))  # squared staggered magnetisation with its error
```

`lattice`, `spins` and `double_exchange` are the exact model, `observables` and
`statistics` the analysis, `samplers` the Markov chains, `models` the effective models,
`learning` their training, and `cost` measures the cost of an independent sample. Every
name below is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_wm.utils.lazy import attach

__all__ = [
    "DoubleExchange",
    "Electrons",
    "EquivariantSelfAttention",
    "Estimate",
    "HeatBath",
    "Lattice",
    "LinearModel",
    "Metropolis",
    "NeuralMetropolis",
    "Samples",
    "Schedule",
    "SelfLearning",
    "Stage",
    "effective_model",
    "estimate",
    "fit",
    "fit_linear",
    "learn",
    "learn_from",
    "learn_linear",
    "load_effective_model",
    "log_weights",
    "on_lattice",
    "random_spins",
    "run",
    "square_lattice",
]

if TYPE_CHECKING:
    from keras_wm.slmc.double_exchange import DoubleExchange, Electrons
    from keras_wm.slmc.lattice import Lattice, square_lattice
    from keras_wm.slmc.learning.fit import fit
    from keras_wm.slmc.learning.online import (
        Schedule,
        Stage,
        learn,
        learn_from,
        learn_linear,
    )
    from keras_wm.slmc.learning.samples import Samples
    from keras_wm.slmc.models.attention import EquivariantSelfAttention
    from keras_wm.slmc.models.effective_model import (
        effective_model,
        load_effective_model,
        log_weights,
        on_lattice,
    )
    from keras_wm.slmc.models.linear_model import LinearModel, fit_linear
    from keras_wm.slmc.samplers.chain import run
    from keras_wm.slmc.samplers.heat_bath import HeatBath
    from keras_wm.slmc.samplers.metropolis import Metropolis
    from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
    from keras_wm.slmc.samplers.self_learning import SelfLearning
    from keras_wm.slmc.spins import random_spins
    from keras_wm.slmc.statistics import Estimate, estimate

__getattr__, __dir__ = attach(
    __name__,
    {
        "double_exchange": ["DoubleExchange", "Electrons"],
        "lattice": ["Lattice", "square_lattice"],
        "learning.fit": ["fit"],
        "learning.online": ["Schedule", "Stage", "learn", "learn_from", "learn_linear"],
        "learning.samples": ["Samples"],
        "models.attention": ["EquivariantSelfAttention"],
        "models.effective_model": [
            "effective_model",
            "load_effective_model",
            "log_weights",
            "on_lattice",
        ],
        "models.linear_model": ["LinearModel", "fit_linear"],
        "samplers.chain": ["run"],
        "samplers.heat_bath": ["HeatBath"],
        "samplers.metropolis": ["Metropolis"],
        "samplers.neural_metropolis": ["NeuralMetropolis"],
        "samplers.self_learning": ["SelfLearning"],
        "spins": ["random_spins"],
        "statistics": ["Estimate", "estimate"],
    },
)
