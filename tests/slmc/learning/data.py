"""Training data shared by the tests of learning."""

import numpy as np

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.learning.samples import Samples
from keras_wm.slmc.spins import random_spins

LATTICE = square_lattice(4)


def hot_samples(count=1280, beta=6.0):
    """Random spins with their exact weights, one per chain."""
    spins = random_spins(np.random.default_rng(0), count, 16)
    weights = DoubleExchange(LATTICE, beta).log_weight(spins)
    return Samples.from_series({"spins": spins[None], "log_weight": weights[None]})
