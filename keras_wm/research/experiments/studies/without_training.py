r"""The experiment `without-training`: embedding after training, without the task.

It shows why the papers embed during training. Uchida et al. (2017), section 4.3.4,
change the weights of a trained network to minimise
\(\tfrac12 \lVert w - w_0 \rVert^2 + \lambda E_R(w)\), where w is the mean filter. For a
kernel W of L filters that is

\[\frac{1}{2L} \lVert W - W_0 \rVert^2 + \frac{\lambda}{T} \sum_j \ell_j(W),\]

because the smallest change of W that changes the mean filter is the same in all
filters. In this form it is also defined for keyed filters and for the margin. Here
\(\lambda\) multiplies the mean over the bits. All other experiments train with the sum,
but with the sum the papers' results of this experiment cannot be reproduced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.experiment import Experiment, Run, network_run
from keras_wm.research.experiments.measurement import measure_network
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import SCHEMES, Mark
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    COST,
    ResultTable,
    grouped,
    make_table,
    mean_of,
    published_column,
)
from keras_wm.research.experiments.training import Training, mark_to_test
from keras_wm.utils.arrays import Floats

STRENGTHS = (0.0, 1.0, 10.0, 100.0)
MAX_SEEDS = 3


def embedded_without_training(kernel: Floats, mark: Mark, strength: float) -> Floats:
    """Returns the kernel W that minimises the objective above, from the kernel W_0."""
    from scipy.optimize import minimize

    objective, start = _Objective(kernel, mark, strength), np.zeros(kernel.size)
    result = minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}
    )
    moved: Floats = kernel + result.x.reshape(kernel.shape)
    return moved


class _Objective:
    """The objective above and its gradient, as functions of W - W_0."""

    def __init__(self, kernel: Floats, mark: Mark, strength: float) -> None:
        key = mark.key().for_shape(kernel.shape)
        self._size, self._count = key.size, key.count
        self._start = kernel.reshape(self._size, self._count).astype(np.float64)
        self._strength = strength / key.bits
        self._rows = key.signs[:, None] * key.matrix
        self._weights = key.filter_weights
        self._group = np.arange(key.bits) % key.groups
        self._spread = key.spread
        self._margin = mark.margin(kernel.shape)

    def __call__(self, change: Floats) -> tuple[float, Floats]:
        moved = change.reshape(self._start.shape)
        u = (self._start + moved) @ self._weights.T
        loss, by_u = self._penalty(u)
        value = np.sum(moved**2) / (2 * self._count) + self._strength * loss
        gradient = moved / self._count + self._strength * by_u @ self._weights
        return float(value), gradient.reshape(-1)

    def _penalty(self, u: Floats) -> tuple[float, Floats]:
        """Returns the sum of the bits' losses and its gradient by u, shape (M, G)."""
        y = np.einsum("tm,mt->t", self._rows, u[:, self._group])
        if self._margin is None:
            # Cross-entropy of sigmoid(y) with the target 1.
            loss, by_y = np.logaddexp(0, -y).sum(), -1 / (1 + np.exp(y))
            return float(loss), self._by_u(by_y)
        norms = np.linalg.norm(u, axis=0)
        z = y / (norms[self._group] * self._spread)
        missing = np.maximum(0, self._margin - z)
        by_z = -2 * missing
        by_u = self._by_u(by_z / (norms[self._group] * self._spread))
        # z decreases with the norm of u, which adds a second term to the gradient.
        by_norm = np.bincount(self._group, by_z * z, minlength=len(norms))
        return float(np.sum(missing**2)), by_u - u * (by_norm / norms**2)

    def _by_u(self, by_y: Floats) -> Floats:
        by_u = np.zeros((self._size, len(self._weights)))
        for group in range(len(self._weights)):
            bits = self._group == group
            by_u[:, group] = by_y[bits] @ self._rows[bits]
        return by_u


def _runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, MAX_SEEDS)):
        host = Training(seed, settings.training_epochs)
        for scheme in settings.marks:
            mark = mark_to_test(settings, scheme, seed)
            for strength in STRENGTHS:
                labels = {"scheme": scheme, "strength": strength, "seed": seed}
                yield network_run(labels, host, _moved, mark=mark, strength=strength)


def _moved(model: Any, pictures: Pictures, mark: Mark, strength: float) -> Measurements:
    kernel = model.get_layer(mark.layers[0]).kernel
    before = np.asarray(kernel, np.float64)
    after = embedded_without_training(before, mark, strength)
    kernel.assign(after)
    change = float(np.sum((after - before) ** 2) / (2 * before.shape[-1]))
    return {"half_square_change": change, **measure_network(model, pictures, mark)}


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    title = "Embedding after training, without the task"
    groups = grouped(rows, scheme=SCHEMES, strength=STRENGTHS)
    cells = COST | {
        "change": lambda rows: mean_of(rows, "half_square_change"),
        "change in papers": _published_change,
    }
    cells |= published_column(papers.WITHOUT_TRAINING, "strength")
    notes = [
        "change: half the squared change of the weights per filter, |W - W_0|^2 / 2 L; "
        "for the papers' marks, that of the mean filter."
    ]
    return [make_table(title, groups, ["mark", "lambda"], cells, notes)]


def _published_change(rows: Sequence[Row]) -> str:
    scheme, strength = rows[0]["scheme"], rows[0]["strength"]
    return f"{papers.WITHOUT_TRAINING_CHANGE[strength]:g}" if scheme == "random" else ""


EXPERIMENT = Experiment(
    "without-training",
    "Can a mark be embedded into a trained network without training it?",
    _runs,
    _tables,
)
