"""The experiment `recipients`: leaked copies, traced to their recipients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log, log10, sqrt
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from keras_wm.research.attacks.collusion import (
    Choice,
    Side,
    chosen,
    without_differences,
)
from keras_wm.research.experiments.experiment import Experiment, Run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.studies.embedding import SECOND
from keras_wm.research.experiments.tables import (
    Cell,
    ResultTable,
    grouped,
    make_table,
    percent,
)
from keras_wm.research.experiments.training import Training, from_scratch
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.normal import log_tail
from keras_wm.utils.arrays import Floats
from keras_wm.verification.original import change_from
from keras_wm.verification.standing import MARKED

# Each run marks this many copies, and fine-tunes each for a few epochs.
COPIES_PER_RUN = 10
COPY_EPOCHS = 4
COPY_RATE = 0.05
# Leaks of each kind in a run, and how many of them are tested for their accuracy.
LEAKS_PER_RUN = 10
ERRORS_PER_RUN = 2
# Numbers of recipients who combine their copies.
COLLUDERS = (2, 3, 5)
# Norm of the noise that is added to the marked kernel of each copy, as a share of its
# own. It hides the marks in the differences of the copies.
DRIFTS = (0.0, 0.02, 0.05)
# Share of the squared norm of the differences that is removed.
REMOVED = 0.99

Combine = Callable[[Floats, np.random.Generator], Floats]


@dataclass(frozen=True)
class _Attack:
    """A way in which several copies of the marked kernel are combined.

    Attributes:
        combine: Function that combines the kernels of the copies.
        colluders: Numbers of copies to combine.
        drifts: Values of the drift to try.
    """

    combine: Combine
    colluders: Sequence[int] = COLLUDERS
    drifts: Sequence[float] = DRIFTS


def _mean(stack: Floats, rng: np.random.Generator) -> Floats:
    return np.asarray(stack.mean(axis=0))


def _removed(stack: Floats, rng: np.random.Generator, side: Side) -> Floats:
    return without_differences(stack, side, REMOVED)


def _chosen(stack: Floats, rng: np.random.Generator, choice: Choice) -> Floats:
    return chosen(stack, choice, rng)


_ATTACKS = {
    "single copy": _Attack(_mean, (1,)),
    "average": _Attack(_mean),
    **{
        f"without differences, {side}": _Attack(partial(_removed, side=side))
        for side in get_args(Side)
    },
    # With two copies, each of these is an average or a random choice.
    **{
        f"{choice} weight": _Attack(partial(_chosen, choice=choice), (3, 5), (0.0,))
        for choice in get_args(Choice)
    },
}


def recipients_of(settings: Settings) -> list[str]:
    """Returns the names of all recipients: 1,000 with five seeds."""
    return [f"customer-{number}" for number in range(200 * settings.seeds)]


def _runs(settings: Settings) -> Iterator[Run]:
    """Yields runs that mark copies for a fifth of the recipients: 200 with 5 seeds."""
    host = from_scratch(settings, "default", 0)
    for first in range(0, len(recipients_of(settings)) // 5, COPIES_PER_RUN):
        perform = partial(_traced, settings=settings, host=host, first=first)
        yield Run({"first": first}, perform, host)


def _traced(
    store: NetworkStore, settings: Settings, host: Training, first: int
) -> Measurements:
    """Marks copies, combines some of them, and tests all for every recipient's mark."""
    mark = host.own_mark
    names = recipients_of(settings)
    pictures = store.pictures(host.task)
    model, _ = store.network(host)
    host_error = pictures.test_error(model)
    original = _kernel(model, mark.layers[0])
    weights = []
    for name in names[first : first + COPIES_PER_RUN]:
        own = replace(mark, recipient=name)
        copy = Training(SECOND + first, COPY_EPOCHS, own, start=host, rate=COPY_RATE)
        model, _ = store.network(copy)
        weights.append(model.get_weights())
    variable = model.get_layer(mark.layers[0]).kernel
    (position,) = (i for i, v in enumerate(model.weights) if v is variable)

    conditions: dict[tuple[str, int, float], list[float]] = {}
    kernels, guilty = [], []
    for labels, members, kernel in _leaks([copy[position] for copy in weights], first):
        errors = conditions.setdefault(labels, [])
        if len(errors) < ERRORS_PER_RUN:
            copies = [weights[member] for member in members]
            means = [np.mean(arrays, axis=0) for arrays in zip(*copies, strict=True)]
            model.set_weights([*means[:position], kernel, *means[position + 1 :]])
            errors.append(pictures.test_error(model))
        kernels.append(kernel)
        guilty.append({first + member for member in members})
    keys = [replace(mark, recipient=name).key() for name in names]
    plain = soft_log10_p(kernels, keys)
    compared = soft_log10_p([change_from(k, original) for k in kernels], keys)
    compared = np.minimum(plain, compared) + log10(2)
    return {
        "host_error": host_error,
        "conditions": [
            {
                **dict(zip(("attack", "mixed", "drift"), labels, strict=True)),
                "test_errors": errors,
                "plain": _named(guilty[part], plain[part]),
                "by_change": _named(guilty[part], compared[part]),
            }
            for number, (labels, errors) in enumerate(conditions.items())
            for part in [slice(number * LEAKS_PER_RUN, (number + 1) * LEAKS_PER_RUN)]
        ],
    }


def _leaks(
    copies: Sequence[NDArray[Any]], seed: int
) -> Iterator[tuple[tuple[str, int, float], Sequence[int], Floats]]:
    """Yields each leak's condition, the copies that it is made from, and its kernel."""
    rng = np.random.default_rng(seed)
    kernels = np.stack(copies).astype(np.float64)
    for name, attack in _ATTACKS.items():
        for count in attack.colluders:
            for drift in attack.drifts:
                for number in range(LEAKS_PER_RUN):
                    members = rng.choice(len(copies), count, replace=False)
                    if count == 1:
                        members = np.array([number % len(copies)])
                    stack = kernels[members]
                    noise = rng.normal(size=stack.shape)
                    stack = stack + drift * kernels.std() * noise
                    kernel = attack.combine(stack, rng)
                    yield (name, count, drift), members.tolist(), kernel


def soft_log10_p(kernels: Sequence[Floats], keys: Sequence[WatermarkKey]) -> Floats:
    """Returns the soft p-values of recipients' marks in kernels of one shape.

    These are those of `detect`, computed for all kernels at once, because a study has
    hundreds of leaks and a thousand recipients.

    Args:
        kernels: The kernels.
        keys: Keys of recipients.

    Returns:
        log10 of the p-values, shape `(kernels, keys)`, not corrected.
    """
    mark = keys[0].for_shape(kernels[0].shape)
    units = np.stack([mark.blocks(kernel) for kernel in kernels])
    units /= np.maximum(np.linalg.norm(units, axis=2, keepdims=True), 1e-300)
    flat = units.reshape(len(kernels), -1)
    log10_p = np.empty((len(kernels), len(keys)))
    for index, key in enumerate(keys):
        mark = key.for_shape(kernels[0].shape)
        pattern = (mark.signs[:, None] * mark.matrix / mark.spread).reshape(-1)
        sums = flat @ pattern / sqrt(mark.bits)
        factor = log(mark.tail_factor or 1.0)
        log10_p[:, index] = [(log_tail(float(s)) + factor) / log(10) for s in sums]
    return np.minimum(log10_p, 0.0)


def _named(guilty: Sequence[set[int]], log10_p: Floats) -> Measurements:
    """Returns how many recipients are named in some leaks, rightly and wrongly.

    Args:
        guilty: The recipients whose copies each leak is made from.
        log10_p: log10 of the p-values, shape `(leaks, recipients)`.

    Returns:
        The number of guilty recipients who are named in each leak, those of innocent
        ones who are named and tested, and the largest, over the leaks, of the smallest
        p-value of a guilty recipient.
    """
    all_p = np.minimum(log10_p + log10(log10_p.shape[1]), 0)
    is_guilty = np.array(
        [np.isin(np.arange(log10_p.shape[1]), list(leak)) for leak in guilty]
    )
    is_named = all_p < log10(MARKED)
    return {
        "named": np.sum(is_named & is_guilty, axis=1).tolist(),
        "innocent_named": int(np.sum(is_named & ~is_guilty)),
        "innocents": int(np.sum(~is_guilty)),
        "log10_p": float(np.where(is_guilty, all_p, 0).min(axis=1).max()),
    }


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    conditions = [condition for row in rows for condition in row["conditions"]]
    labels = {"attack": tuple(_ATTACKS), "mixed": (1, *COLLUDERS), "drift": DRIFTS}
    groups = grouped(conditions, **labels)
    headings = ["what was done to the marked kernel", "copies", "drift"]
    tables = []
    for way, title, notes in (
        ("plain", "Recipients: tracing a leaked copy", []),
        ("by_change", "Tracing it with the owner's original", _notes(rows, conditions)),
    ):
        cells: dict[str, Cell] = {
            "error, %": _test_error,
            "named": partial(_count, way=way),
            "all": partial(_count, way=way, is_all=True),
            "log10 p": partial(_worst, way=way),
            "wrong": partial(_innocents, way=way),
        }
        tables.append(make_table(title, groups, headings, cells, notes))
    return tables


def _notes(rows: Sequence[Row], conditions: Sequence[Row]) -> list[str]:
    leaks = sorted({len(row["plain"]["named"]) for row in conditions})
    innocents = sum(row["plain"]["innocents"] for row in conditions)
    errors = sorted({f"{100 * row['host_error']:.2f} %" for row in rows})
    return [
        f"A recipient is named if p < {MARKED:g} after correction for the number of "
        "recipients. Each copy is the owner's marked network, fine-tuned for a few "
        "epochs with one recipient's key in the same layer. With the owner's original, "
        "the change from it is tested too.",
        f"named: leaks, of {len(rows) * leaks[-1] if leaks else 0}, in which a "
        "recipient whose copy was used is named. all: leaks in which all of them are. "
        "log10 p: the weakest of the strongest marks in each leak. wrong: names of "
        f"innocent recipients, of {innocents:,} that were tested in all rows of a "
        "table.",
        "drift: noise that is added to the marked kernel of each copy, as a share of "
        f"its norm. without differences: {100 * REMOVED:g} % of the squared norm of "
        "the copies' differences, in their largest singular vectors, is removed from "
        "their average. "
        f"Test error of the owner's network: {', '.join(errors) or '-'}.",
    ]


def _test_error(rows: Sequence[Row]) -> str:
    errors = [{"error": error} for row in rows for error in row["test_errors"]]
    return percent(errors, "error")


def _count(rows: Sequence[Row], way: str, is_all: bool = False) -> str:
    needed = rows[0]["mixed"] if is_all else 1
    return str(sum(count >= needed for row in rows for count in row[way]["named"]))


def _worst(rows: Sequence[Row], way: str) -> str:
    return format(max(row[way]["log10_p"] for row in rows), "z.0f")


def _innocents(rows: Sequence[Row], way: str) -> str:
    return str(sum(row[way]["innocent_named"] for row in rows))


def _kernel(model: Any, layer: str) -> Floats:
    return np.asarray(model.get_layer(layer).kernel, np.float64)


EXPERIMENT = Experiment(
    "recipients",
    "Does the mark of a leaked copy identify its recipient, and nobody else?",
    _runs,
    _tables,
)
