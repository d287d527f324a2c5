"""Parties to a dispute who forged their key or their original."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_wm.research.attacks.architecture import fresh_network
from keras_wm.research.attacks.forging.keys import most_solved_bits, solved_key
from keras_wm.research.attacks.forging.references import with_mark
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.comparison import Party


def unrelated_original(model: Any, layer: str, key: WatermarkKey) -> Party:
    """Returns a thief who shows another network with his mark as his original.

    The network has nothing to do with the disputed one, so the owner's mark is not in
    it. The thief's key was found in the disputed model in some other way.

    Args:
        model: The disputed model, which carries the owner's mark.
        layer: Name of the layer that the thief marks in his network.
        key: The thief's key.
    """
    original = fresh_network(model)
    kernel = original.get_layer(layer).kernel
    kernel.assign(with_mark(np.asarray(kernel), key))
    return Party(key, original)


def explicit_party(model: Any, layer: str, seed: int) -> Party:
    """Returns a thief with an explicit key that was solved for the disputed model.

    The owner's original is nearly the same model, so the key is found in it, too.
    """
    kernel = np.asarray(model.get_layer(layer).kernel, np.float64)
    key = solved_key(kernel, most_solved_bits(kernel), seed)
    return unrelated_original(model, layer, key)
