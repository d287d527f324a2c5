r"""Redrawing a kernel in the directions that its layer does not see.

The inputs of a layer fill few of the directions that the filters of its kernel have.
What the kernel does in the other directions is not part of the network's function, so
an attacker can redraw it. He only needs inputs, without labels: C is the second
moment of the rows that the kernel is multiplied with, V its eigenvectors with the
eigenvalues \(\lambda_i\), and \(\mu\) the mean eigenvalue.

Each attack replaces the kernel W, with its rows in the first axis, by

\[W' = W_0 + V \, \mathrm{diag}(f) \, V^\top (W - W_0)\]

with fresh weights \(W_0\) and the share \(f_i\) of the old weights that is kept along
each direction. If several kernels are redrawn, each of them sees other inputs than
before. Its old weights are then those that come closest to its old outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, Self

import numpy as np

from keras_wm.embedding.anchoring.kernel_inputs import (
    KernelInputs,
    count_examples,
    sampled_rows,
)
from keras_wm.research.attacks.attack import Attack, kernels_by_layer, layer_phrase
from keras_wm.research.attacks.training import (
    EXAMPLES,
    refit_normalizations,
    unlabelled,
)
from keras_wm.research.datasets import Examples
from keras_wm.utils.arrays import Floats

# The inputs that the attacker gives the network.
Shown = Literal["task", "noise"]
# Rows of inputs from which a second moment is estimated.
_ROWS = 8192
# An eigenvalue below this share of the largest is rounding error.
_NEGLIGIBLE = 1e-12
# A kernel with fewer inputs has no direction that the inputs do not fill.
_FEWEST_INPUTS = 64


@dataclass(frozen=True)
class Seen:
    """Holds what the inputs of a kernel show of it.

    Attributes:
        values: The eigenvalues of the inputs' second moment that are not 0, relative to
            their mean over all directions, shape `(r,)`.
        vectors: Its eigenvectors, shape `(M, r)`.
        best: Least squares estimate of the weights along the eigenvectors that give the
            layer's outputs, shape `(r, ...)`.
    """

    values: Floats
    vectors: Floats
    best: Floats

    @classmethod
    def of(cls, rows: Floats, outputs: Floats) -> Self:
        """Returns what some rows of inputs, shape `(n, M)`, and the outputs show."""
        count, size = rows.shape
        # The smaller one of the two matrices that have these eigenvalues.
        if size <= count:
            values, vectors = np.linalg.eigh(rows.T @ rows)
        else:
            values, left = np.linalg.eigh(rows @ rows.T)
        kept = values > _NEGLIGIBLE * values[-1]
        values = values[kept]
        if size <= count:
            vectors = vectors[:, kept]
        else:
            vectors = rows.T @ left[:, kept] / np.sqrt(values)
        best = vectors.T @ (rows.T @ outputs) / values[:, None]
        return cls(values * size / values.sum(), vectors, best)

    def mixed(self, fresh: Floats, kept: Floats) -> Floats:
        """Returns fresh weights, shape `(M, ...)`, with a share of the best ones.

        Args:
            fresh: Weights of shape `(M, ...)`.
            kept: The share f along each eigenvector, shape `(r,)`.
        """
        change = kept[:, None] * (self.best - self.vectors.T @ fresh)
        mixed: Floats = fresh + self.vectors @ change
        return mixed


# Returns the changed matrix of a kernel, given the matrix, what its inputs show of it,
# the strength, and fresh weights.
_Redraw = Callable[[Floats, Seen, float, Floats], Floats]


def _ridge(old: Floats, seen: Seen, strength: float, fresh: Floats) -> Floats:
    return seen.mixed(fresh, seen.values / (seen.values + strength))


def _relearned(old: Floats, seen: Seen, steps: float, fresh: Floats) -> Floats:
    speeds = seen.values / seen.values.max()
    return seen.mixed(fresh, 1 - (1 - speeds) ** round(steps))


def _with_noise(old: Floats, seen: Seen, strength: float, fresh: Floats) -> Floats:
    removed = 1 - (1 + seen.values) ** -0.5
    along = seen.vectors.T @ fresh
    return old + strength * (fresh - seen.vectors @ (removed[:, None] * along))


# The name, the title and the unit of each attack, its strengths, and what it does.
_KINDS: dict[str, tuple[str, str, tuple[float, ...], _Redraw]] = {
    "ridge": (
        "Redraws {} in the directions that its inputs hardly have",
        "ridge, in mean eigenvalues of the inputs' second moment",
        (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        _ridge,
    ),
    "relearning": (
        "Redraws {} and trains each layer to repeat its old outputs",
        "steps of gradient descent",
        (10_000, 3000, 1000, 300, 100, 30, 10),
        _relearned,
    ),
    "unseen-noise": (
        "Adds noise to {}, where its inputs hardly have a component",
        "standard deviations of the kernel's weights",
        (0.1, 0.3, 1.0, 3.0, 10.0),
        _with_noise,
    ),
}
KINDS = tuple(_KINDS)


def redrawing(
    kind: str,
    layer: str | None = None,
    shown: Shown = "task",
    examples: int = EXAMPLES,
) -> Attack:
    r"""Returns an attack that redraws kernels where their layers do not see them.

    - `"ridge"`: \(f_i = \lambda_i / (\lambda_i + s \mu)\), the ridge regression of the
      layer's outputs with the strength s, which starts from fresh weights.
    - `"relearning"`: \(f_i = 1 - (1 - \lambda_i / \lambda_1)^s\), gradient descent on
      the layer's outputs from fresh weights, for s steps.
    - `"unseen-noise"`: adds noise of variance
      \((s \sigma)^2 / (1 + \lambda_i / \mu)\), where \(\sigma\) is the standard
      deviation of the kernel's weights.

    Batch normalizations are fitted to the changed activations if the attacker has
    examples of the task.

    Args:
        kind: One of `KINDS`.
        layer: Name of the marked layer. `None` changes every kernel of a dense or
            convolutional layer with at least 64 inputs, but that of the outputs.
        shown: `"task"` shows the network its training examples, without labels;
            `"noise"` shows it uniform noise, and needs no data.
        examples: Number of examples that are shown.

    Returns:
        An `Attack`.
    """
    title, unit, strengths, redraw = _KINDS[kind]

    def change(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        inputs = _inputs(model, data if shown == "task" else None, examples, rng)
        readers = _readers(model, layer)
        each = ceil(_ROWS / count_examples(inputs))
        targets = _outputs(model, readers, inputs, each, seed)
        for reader, outputs in zip(readers, targets, strict=True):
            rows = np.concatenate(
                [rows for (rows,) in sampled_rows(model, [reader], inputs, each, seed)]
            )
            seen = Seen.of(rows.astype(np.float64), outputs)
            old = reader.matrix(np.asarray(reader.kernel, np.float64))
            fresh = old.std() * rng.normal(size=old.shape)
            reader.kernel.assign(reader.kernel_of(redraw(old, seen, strength, fresh)))
            if shown == "task":
                refit_normalizations(model, inputs)
        return model

    of_noise = ", as measured with noise" if shown == "noise" else ""
    return Attack(
        f"{kind}-{shown}",
        f"{title.format(layer_phrase(layer))}{of_noise}.",
        unit,
        strengths,
        change,
        needs_data=shown == "task",
    )


def _readers(model: Any, layer: str | None) -> list[KernelInputs]:
    """Returns the kernels to redraw, each with its inputs.

    Raises:
        ValueError: If there are none.
    """
    pairs = kernels_by_layer(model, layer)
    if layer is not None:
        return [KernelInputs.of(*pair) for pair in pairs]
    readers = []
    for pair in pairs[:-1]:
        try:
            readers.append(KernelInputs.of(*pair))
        except ValueError:
            continue
    readers = [reader for reader in readers if reader.size >= _FEWEST_INPUTS]
    if not readers:
        raise ValueError(
            "Expected a model with a dense or convolutional layer of at least "
            f"{_FEWEST_INPUTS} inputs before its last layer. Received: {model.name!r}"
        )
    return readers


def _outputs(
    model: Any, readers: list[KernelInputs], inputs: Any, each: int, seed: int
) -> list[Floats]:
    """Returns the outputs of some layers, without bias, at the places of the rows."""
    kernels = [reader.matrix(np.asarray(reader.kernel)) for reader in readers]
    batches = [
        [seen @ kernel for seen, kernel in zip(rows, kernels, strict=True)]
        for rows in sampled_rows(model, readers, inputs, each, seed)
    ]
    return [np.concatenate(outputs) for outputs in zip(*batches, strict=True)]


def _inputs(
    model: Any, data: Examples | None, examples: int, rng: np.random.Generator
) -> Any:
    """Returns what the attacker shows the network."""
    if data is not None:
        return unlabelled(data, examples, rng)
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if any(None in shape for shape in shapes):
        raise ValueError(
            "Expected a model whose inputs have a fixed shape, to show it noise. "
            f"Received: {model.name!r}, with inputs of shape {shapes}"
        )
    noise = [rng.random((examples, *shape), np.float32) for shape in shapes]
    return noise if len(noise) > 1 else noise[0]
