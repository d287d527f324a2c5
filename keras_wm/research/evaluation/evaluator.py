"""Evaluating a marked network: fidelity, robustness, capacity, security, efficiency."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from math import log10
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_wm.embedding.key_scope import keys
from keras_wm.research.attacks.catalogue import families as every_family
from keras_wm.research.attacks.catalogue import select_families
from keras_wm.research.attacks.forging import searched_keys
from keras_wm.research.attacks.training import check_data
from keras_wm.research.datasets import Examples
from keras_wm.research.detectability import kernel_statistics
from keras_wm.research.evaluation.cost import detection_seconds, step_ratio
from keras_wm.research.evaluation.evaluation import (
    Capacity,
    Efficiency,
    Evaluation,
    Fidelity,
    Security,
)
from keras_wm.research.evaluation.outcomes import Families, Outcome, Subject, outcomes
from keras_wm.scheme.capacity import readable_weights, share, unseen_bits
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.result import MARKED, Verification
from keras_wm.verification.verification import verify

TOLERANCE = 0.02
WRONG_KEYS = 200
_STEPS = 30
_95_PERCENT = 1.96

Model = Any
# Called with how many outcomes there are, and how many there will be.
Progress = Callable[[int, int], None]


def evaluate(
    model: Model,
    key: WatermarkKey,
    data: Examples | None = None,
    baseline: Model | None = None,
    unmarked: Sequence[Model] = (),
    families: Sequence[str] | None = None,
    strengths: int | None = None,
    seeds: int = 1,
    tolerance: float = TOLERANCE,
    alpha: float = MARKED,
    progress: Progress | None = None,
) -> Evaluation:
    """Measures what a mark is worth in a network that carries it.

    Fills the papers' table of requirements (Uchida et al. 2017, section 2): fidelity,
    robustness, capacity, security and efficiency. An attack only counts if the
    network is worth having after it.

    Args:
        model: Your own marked network: a file, which is loaded with Keras, or a model
            in memory.
        key: The key that marked it.
        data: What attacks train on and errors are measured on: examples with labels
            for a classifier of one input and one output, see
            `keras_wm.research.datasets.load_examples`. Without, the attacks that train
            are left out, and every attack counts.
        baseline: The same network without a mark, for the fidelity.
        unmarked: Networks that are attacked too, to see whether the mark is ever found
            in them by mistake.
        families: The names of families of attacks, see
            `keras_wm.research.attacks.catalogue.families`. Defaults to all.
        strengths: How many strengths of each attack, from the weakest to the
            strongest. Defaults to all.
        seeds: How often each attack is done. Defaults to 1.
        tolerance: How much test error an attack may cost and still count, as a share.
            Defaults to 0.02.
        alpha: A mark is found with a corrected p-value below this. Defaults to 1e-9.
        progress: Called with how many outcomes there are, and how many there will be.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: If the network does not carry the key's mark, or the data do not
            fit it.
    """
    network, file = _loaded(model, key)
    verification = verify(file or network, key, alpha=alpha)
    if not verification.marked or verification.layer is None:
        raise ValueError(
            "Expected a network that carries the key's mark. Received: "
            f"{file or network.name!r}, in which it is not found "
            f"(p = {10**verification.log10_p:.2g})."
        )
    if data is not None:
        data = _fitting(data, network)
    layer = _layer_name(network, verification.layer)
    kernel = np.asarray(network.get_layer(layer).kernel, np.float64)
    twin = None if baseline is None else _loaded(baseline, key)[0]
    chosen = _chosen(layer, families, strengths, data)
    subjects = _subjects(network, unmarked, key, layer)
    return Evaluation(
        verification=verification,
        layer=layer,
        data="" if data is None else data.name,
        seeds=seeds,
        tolerance=tolerance,
        fidelity=_fidelity(network, twin, data),
        capacity=_capacity(kernel, key, verification),
        security=_security(kernel, key, twin, layer, alpha),
        efficiency=Efficiency(
            None if data is None else step_ratio(network, key, layer, data, _STEPS),
            None if file is None else detection_seconds(file, key),
            None if file is None else Path(file).stat().st_size,
        ),
        outcomes=_all_outcomes(subjects, chosen, data, seeds, progress),
        attacks={
            attack.name: (attack.title, attack.unit)
            for attacks in chosen.values()
            for attack in attacks
        },
    )


def _fitting(data: Examples, network: Any) -> Examples:
    """Data as a network takes them: grey pictures with an axis for their channel."""
    expected: Sequence[int | None] = getattr(network, "input_shape", ())
    if len(expected) == data.x_train.ndim + 1 and expected[-1] == 1:
        data = data.with_channel()
    check_data(network, data)
    return data


def _chosen(
    layer: str,
    names: Sequence[str] | None,
    strengths: int | None,
    data: Examples | None,
) -> Families:
    """The attacks that are done, by family."""
    return {
        family: [
            attack if strengths is None else attack.thinned(strengths)
            for attack in attacks
            if data is not None or not attack.needs_data
        ]
        for family, attacks in select_families(every_family(layer), names).items()
    }


def _all_outcomes(
    subjects: Sequence[Subject],
    chosen: Families,
    data: Examples | None,
    seeds: int,
    progress: Progress | None,
) -> list[Outcome]:
    """What all attacks leave of all networks."""
    strengths = [one.strengths for attacks in chosen.values() for one in attacks]
    total = len(subjects) * seeds * sum(map(len, strengths))
    every: list[Outcome] = []
    for subject in subjects:
        for outcome in outcomes(subject, chosen, data, seeds):
            every.append(outcome)
            if progress is not None:
                progress(len(every), total)
    return every


def _loaded(model: Model, key: WatermarkKey) -> tuple[Any, str | None]:
    """A model in memory, and the file that it came from."""
    if not isinstance(model, (str, os.PathLike)):
        return model, None
    with keys(key):
        return keras.saving.load_model(model, compile=False), os.fspath(model)


def _layer_name(network: Any, kernel: str) -> str:
    """The name of the layer that a kernel is in, by the kernel's name in a report."""
    parts = kernel.split("/")[:-1]
    names = {layer.name for layer in network.layers}
    found = [part for part in parts if part in names]
    if not found or not hasattr(network.get_layer(found[-1]), "kernel"):
        raise ValueError(
            "Expected the mark in a layer of the network itself, not of a model inside "
            f"it. Received: a mark in {kernel!r}"
        )
    return found[-1]


def _subjects(
    network: Any, unmarked: Sequence[Model], key: WatermarkKey, layer: str
) -> list[Subject]:
    """The networks that are attacked."""
    others = [
        Subject(_loaded(one, key)[0], key, layer, network, f"unmarked {number}")
        for number, one in enumerate(unmarked, 1)
    ]
    return [Subject(network, key, layer, network), *others]


def _fidelity(network: Any, twin: Any, data: Examples | None) -> Fidelity:
    if data is None:
        return Fidelity()
    if twin is None:
        return Fidelity(data.test_error(network))
    marked, unmarked = data.wrong_answers(network), data.wrong_answers(twin)
    differences = marked.astype(np.float64) - unmarked
    half = _95_PERCENT * differences.std(ddof=1) / np.sqrt(differences.size)
    return Fidelity(
        float(marked.mean()),
        float(unmarked.mean()),
        float(differences.mean()),
        float(half),
    )


def _capacity(kernel: Any, key: WatermarkKey, verification: Verification) -> Capacity:
    size, count = key.check_shape(kernel.shape)
    margin = float(np.mean(verification.z))
    return Capacity(
        key.bits,
        size,
        count,
        readable_weights(size, count, key.groups),
        unseen_bits(key.filters, size, count),
        margin,
        share(key.bits, key.filters, size, count, margin),
    )


def _security(
    kernel: Any, key: WatermarkKey, twin: Any, layer: str, alpha: float
) -> Security:
    begin = time.perf_counter()
    tried = [p for _, p in searched_keys(kernel, key.bits, WRONG_KEYS, seed=0)]
    seconds = (time.perf_counter() - begin) / WRONG_KEYS
    seen = kernel_statistics(kernel)
    beside: Mapping[str, float] = {}
    if twin is not None:
        beside = kernel_statistics(np.asarray(twin.get_layer(layer).kernel))
    return Security(
        WRONG_KEYS,
        sum(p < log10(alpha) for p in tried),
        min(tried),
        seconds,
        {name: (value, beside.get(name)) for name, value in seen.items()},
    )
