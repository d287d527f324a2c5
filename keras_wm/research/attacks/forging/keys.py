"""Keys that are made for existing weights.

If the projection can be chosen freely, any message can be read from any weights (Fan et
al. 2019). If it is derived from a secret and all public choices, a forger can only try
secrets or choices until one fits by chance: the best of n has a p-value of about 1/n.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_wm.research.attacks.forging.forgery import BITS, Forgery, fresh_key
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import KEYED_GROUPS, SecretSource
from keras_wm.utils.arrays import Floats


def solved_key(kernel: Floats, bits: int, seed: int) -> WatermarkKey:
    """Returns an explicit key that reads a message from an unmarked kernel.

    Every row of X is drawn from N(0, 1), as in an honest key, and its sign is flipped
    if it reads the wrong bit. X alone does not reveal this.

    Args:
        kernel: The weights, filters last.
        bits: Length T of the message.
        seed: Random seed of the message and of X.
    """
    rng = np.random.default_rng(seed)
    mean_filter = kernel.mean(axis=-1).reshape(-1)
    message = rng.integers(0, 2, bits)
    matrix = rng.normal(size=(bits, mean_filter.size))
    read = matrix @ mean_filter > 0
    matrix[read != message] *= -1
    return WatermarkKey.from_arrays(matrix, message)


def searched_keys(
    kernel: Floats, bits: int, trials: int, seed: int
) -> Iterator[tuple[WatermarkKey, float]]:
    """Tests keys of random secrets on a kernel.

    Args:
        kernel: The weights, filters last.
        bits: Length T of the message.
        trials: Number of secrets.
        seed: Random seed of the secrets.

    Yields:
        A key, and log10 of its p-value.
    """
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        secret = Secret(rng.bytes(32))
        key = WatermarkKey(SecretSource(secret, "forger", bits, "random", "keyed"))
        yield key, detect(kernel, key).log10_p


def most_solved_bits(kernel: Floats) -> int:
    """Returns the length of the message to solve for: what a kernel can hold."""
    size = int(kernel.size // kernel.shape[-1])
    return min(4 * BITS, 2 * size - 1)


def explicit_key(model: Any, layer: str, seed: int) -> Forgery:
    """Solves for the arrays of a key that a layer of the model seems to carry."""
    begin = time.process_time()
    kernel = _kernel(model, layer)
    key = solved_key(kernel, most_solved_bits(kernel), seed)
    return Forgery(model, key, seconds=time.process_time() - begin)


def ground_secret(model: Any, layer: str, seed: int, tries: int) -> Forgery:
    """Tries secrets, and presents the one that fits best."""
    begin = time.process_time()
    keys = searched_keys(_kernel(model, layer), BITS, tries, seed)
    return _best(model, layer, [key for key, _ in keys], begin)


def ground_owner(model: Any, layer: str, seed: int, tries: int) -> Forgery:
    """Tries texts as the owner's name, with one secret."""
    begin = time.process_time()
    keys = [fresh_key(seed, owner=f"forger {number}") for number in range(tries)]
    return _best(model, layer, keys, begin)


def free_groups(model: Any, layer: str, seed: int, tries: int) -> Forgery:
    """Tries numbers G of vectors of filter weights, with one secret."""
    begin = time.process_time()
    secret = Secret(np.random.default_rng(seed).bytes(32))
    keys = [
        WatermarkKey(
            SecretSource(secret, "forger", BITS, "random", "keyed", groups),
            limited=False,
        )
        for groups in range(1, min(tries, KEYED_GROUPS - 1) + 1)
    ]
    return _best(model, layer, keys, begin)


def ground_recipients(model: Any, layer: str, seed: int, tries: int) -> Forgery:
    """Tries names of recipients under one key, whose commitment can be old."""
    begin = time.process_time()
    owner = fresh_key(seed)
    keys = [owner.for_recipient(f"customer {number}") for number in range(tries)]
    return _best(model, layer, keys, begin)


def ground_slots(model: Any, layer: str, seed: int, tries: int) -> Forgery:
    """Looks in many slots of one key, whose commitment can be old."""
    begin = time.process_time()
    key, kernel = fresh_key(seed), _kernel(model, layer)
    for slot in range(tries):
        detect(kernel, key.in_slot(slot))
    seconds = (time.process_time() - begin) / tries
    arguments = {"layer": layer, "slots": tries}
    # Every slot counts as a test, so that more of them do not make p smaller.
    return Forgery(model, key, arguments, tries, seconds)


def seconds_per_derivation(trials: int = 20) -> float:
    """Returns the time of the derivation of one root, without any test of the key.

    No search can stop a try earlier: nothing of a key is known before its root is.
    """
    begin = time.process_time()
    for number in range(trials):
        # A name of its own, because the roots of recent keys are kept.
        fresh_key(number, owner="measured").slot_commitment(0)
    return (time.process_time() - begin) / trials


def _best(
    model: Any, layer: str, keys: Sequence[WatermarkKey], begin: float
) -> Forgery:
    kernel = _kernel(model, layer)
    best = min(keys, key=lambda key: detect(kernel, key).log10_p)
    seconds = (time.process_time() - begin) / len(keys)
    return Forgery(model, best, {"layer": layer}, len(keys), seconds, is_search=True)


def _kernel(model: Any, layer: str) -> Floats:
    return np.asarray(model.get_layer(layer).kernel, np.float64)
