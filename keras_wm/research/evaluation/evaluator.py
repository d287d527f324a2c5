"""Evaluates a marked network: fidelity, robustness, capacity, security, efficiency."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import log10
from pathlib import Path
from statistics import median
from timeit import timeit
from typing import Any

import keras
import numpy as np

from keras_wm.embedding.attachment import attach
from keras_wm.embedding.key_scope import keys
from keras_wm.research.attacks.attack import published_copy
from keras_wm.research.attacks.catalogue import families as all_families
from keras_wm.research.attacks.catalogue import select_families
from keras_wm.research.attacks.forging.keys import searched_keys
from keras_wm.research.attacks.training import (
    BATCH,
    RATE,
    check_data,
    compile_for,
    label_loss,
)
from keras_wm.research.datasets import Examples
from keras_wm.research.detectability import kernel_statistics
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
from keras_wm.verification.result import Verification
from keras_wm.verification.standing import MARKED
from keras_wm.verification.verification import verify

TOLERANCE = 0.02
WRONG_KEYS = 200
# Training steps whose time is measured, with and without the mark, and steps before.
TIMED_STEPS = 30
_WARM_UPS = 3
# Half-width of a 95 % interval, in standard errors of a normal distribution.
_95_PERCENT = 1.96

Model = Any
# Called with the number of finished outcomes and the number of all outcomes.
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
    """Attacks a marked network and measures how well the mark meets its requirements.

    The requirements are those of the papers (Uchida et al. 2017, section 2): fidelity,
    robustness, capacity, security and efficiency. An attack counts only if the network
    is still useful after it.

    Args:
        model: Your own marked network: a file, which is loaded with Keras, or a model
            in memory.
        key: The key that marked it.
        data: Labelled examples to train on and to measure test errors on, for a
            classifier with one input and one output; see
            `keras_wm.research.datasets.load_examples`. Without data, the attacks that
            train are skipped, and all others count.
        baseline: The same network without a mark, to measure the fidelity.
        unmarked: Further networks without the mark. They are attacked too, to count
            how often the mark is found in them by mistake.
        families: Names of families of attacks, see
            `keras_wm.research.attacks.catalogue.families`. Defaults to all.
        strengths: Number of strengths of each attack, evenly spaced, including the
            strongest. Defaults to all.
        seeds: Number of repetitions of each attack. Defaults to 1.
        tolerance: Largest increase of the test error, as a share, after which the
            network is still useful. Defaults to 0.02.
        alpha: Threshold of the corrected p-value below which the mark is found.
            Defaults to 1e-9.
        progress: Function that is called with the number of finished outcomes and the
            number of all outcomes.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: If the network does not carry the key's mark, or the data do not
            fit the network.
    """
    network, file = _loaded(model, key)
    verification = verify(file or network, key, alpha=alpha)
    if not verification.marked or verification.layer is None:
        raise ValueError(
            "Expected a network that carries the key's mark. Received: "
            f"{file or network.name!r}, in which the mark was not found "
            f"(p = {10**verification.log10_p:.2g})."
        )
    if data is not None:
        data = _fitting(data, network)
    layer = _layer_name(network, verification.layer)
    kernel = np.asarray(network.get_layer(layer).kernel, np.float64)
    twin = None if baseline is None else _loaded(baseline, key)[0]
    chosen = _chosen(layer, families, strengths, data)
    subjects = [Subject(network, key, layer, network)]
    subjects += [
        Subject(_loaded(other, key)[0], key, layer, network, f"unmarked {number}")
        for number, other in enumerate(unmarked, 1)
    ]
    return Evaluation(
        verification=verification,
        layer=layer,
        data="" if data is None else data.name,
        seeds=seeds,
        tolerance=tolerance,
        fidelity=_fidelity(network, twin, data),
        capacity=_capacity(kernel, key, verification),
        security=_security(kernel, key, twin, layer, alpha),
        efficiency=_efficiency(network, file, key, layer, data),
        outcomes=_all_outcomes(subjects, chosen, data, seeds, progress),
        attacks={
            attack.name: (attack.title, attack.unit)
            for attacks in chosen.values()
            for attack in attacks
        },
    )


def _fitting(data: Examples, network: Any) -> Examples:
    """Returns checked data: grey pictures get a channel axis if the network has one."""
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
    """Returns the attacks to run, by family."""
    return {
        family: [
            attack if strengths is None else attack.thinned(strengths)
            for attack in attacks
            if data is not None or not attack.needs_data
        ]
        for family, attacks in select_families(all_families(layer), names).items()
    }


def _all_outcomes(
    subjects: Sequence[Subject],
    chosen: Families,
    data: Examples | None,
    seeds: int,
    progress: Progress | None,
) -> list[Outcome]:
    """Returns the outcomes of all attacks on all networks."""
    strengths = sum(
        len(attack.strengths) for attacks in chosen.values() for attack in attacks
    )
    total = len(subjects) * seeds * strengths
    finished: list[Outcome] = []
    for subject in subjects:
        for outcome in outcomes(subject, chosen, data, seeds):
            finished.append(outcome)
            if progress is not None:
                progress(len(finished), total)
    return finished


def _loaded(model: Model, key: WatermarkKey) -> tuple[Any, str | None]:
    """Returns a model in memory, and the path of its file if it was loaded."""
    if not isinstance(model, (str, os.PathLike)):
        return model, None
    with keys(key):
        return keras.saving.load_model(model, compile=False), os.fspath(model)


def _layer_name(network: Any, kernel: str) -> str:
    """Returns the name of a kernel's layer, given the kernel's name in a report."""
    parts = kernel.split("/")[:-1]
    names = {layer.name for layer in network.layers}
    layers = [part for part in parts if part in names]
    if not layers or not hasattr(network.get_layer(layers[-1]), "kernel"):
        raise ValueError(
            "Expected the mark in a layer of the network itself, not of a nested "
            f"model. Received: a mark in {kernel!r}"
        )
    return layers[-1]


def _fidelity(network: Any, twin: Any, data: Examples | None) -> Fidelity:
    if data is None:
        return Fidelity()
    if twin is None:
        return Fidelity(data.test_error(network))
    marked, unmarked = data.misclassified(network), data.misclassified(twin)
    differences = marked.astype(np.float64) - unmarked
    half = _95_PERCENT * differences.std(ddof=1) / np.sqrt(differences.size)
    return Fidelity(
        float(marked.mean()),
        float(unmarked.mean()),
        float(differences.mean()),
        float(half),
    )


def _capacity(kernel: Any, key: WatermarkKey, verification: Verification) -> Capacity:
    mark = key.for_shape(kernel.shape)
    margin = float(np.mean(verification.z))
    return Capacity(
        key.bits,
        mark.size,
        mark.count,
        readable_weights(mark.size, mark.count, key.groups),
        unseen_bits(key.filters, mark.size, mark.count),
        margin,
        share(key.bits, key.filters, mark.size, mark.count, margin),
    )


def _security(
    kernel: Any, key: WatermarkKey, twin: Any, layer: str, alpha: float
) -> Security:
    begin = time.perf_counter()
    log10_p = [p for _, p in searched_keys(kernel, key.bits, WRONG_KEYS, seed=0)]
    seconds = (time.perf_counter() - begin) / WRONG_KEYS
    statistics = kernel_statistics(kernel)
    unmarked: Mapping[str, float] = {}
    if twin is not None:
        unmarked = kernel_statistics(np.asarray(twin.get_layer(layer).kernel))
    return Security(
        WRONG_KEYS,
        sum(p < log10(alpha) for p in log10_p),
        min(log10_p),
        seconds,
        {name: (value, unmarked.get(name)) for name, value in statistics.items()},
    )


def _efficiency(
    network: Any, file: str | None, key: WatermarkKey, layer: str, data: Examples | None
) -> Efficiency:
    ratio = seconds = size = None
    if data is not None:
        ratio = _step_ratio(network, key, layer, data)
    if file is not None:
        seconds = timeit(partial(verify, file, key), number=1)
        size = Path(file).stat().st_size
    return Efficiency(ratio, seconds, size)


def _step_ratio(network: Any, key: WatermarkKey, layer: str, data: Examples) -> float:
    """Returns the time of a training step with the mark over the time without it.

    Two copies of the network are trained alternately on the same batch. The result is
    the median of the ratios of their times.
    """
    loss = label_loss(network, data)
    twins = {True: published_copy(network), False: published_copy(network)}
    attach(twins[True], layer, key)
    batch = data.x_train[:BATCH], data.y_train[:BATCH]
    train = {}
    for marked, twin in twins.items():
        compile_for(twin, loss, TIMED_STEPS, RATE)
        train[marked] = partial(twin.train_on_batch, *batch)
        timeit(train[marked], number=_WARM_UPS)
    ratios = []
    for step in range(TIMED_STEPS):
        # Alternate the order so that neither twin always runs first.
        order = (True, False) if step % 2 else (False, True)
        seconds = {marked: timeit(train[marked], number=1) for marked in order}
        ratios.append(seconds[True] / seconds[False])
    return median(ratios)
