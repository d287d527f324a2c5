"""Measuring an anchor: the main directions of a kernel's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_wm.embedding.anchoring.kernel_inputs import (
    KernelInputs,
    count_examples,
    sampled_rows,
)
from keras_wm.embedding.layer_kernels import find_kernel
from keras_wm.embedding.marked_layers import check_is_model
from keras_wm.scheme.anchor import Anchor
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arrays import Floats

if TYPE_CHECKING:
    from keras_wm.files.keras_model import KerasModel

# The mark's energy along a direction whose eigenvalue is x times their mean is
# 1 + WEIGHT x, at most MOST_ENERGY: about the energy that the kernel itself has there.
# Measured on WRN-10-4 with digits: without the limit or with a smaller weight, less of
# the mark is left after a ridge redraw; with a larger weight, less after a strong one.
WEIGHT, MOST_ENERGY = 3.0, 32.0
# More directions than a layer needs for its function hardly take any energy.
DIRECTIONS = 128
# Rows of inputs from which the second moment is estimated, and rows of an example.
ROWS, ROWS_OF_EXAMPLE = 4096, 64
# The random test vectors beyond the number of directions, for their accuracy.
_MORE_VECTORS = 32
_NEGLIGIBLE = 1e-12
# A mark that is found in the kernel with a smaller p-value forbids to measure.
_MARKED = 1e-4


def measure_anchor(
    model: KerasModel, layer: Any, inputs: Any, variable: str | None = None
) -> Anchor:
    r"""Measures which directions of its inputs a layer uses, as the anchor of a mark.

    The second moment C of the rows that the kernel is multiplied with has the
    eigenvalues \(\lambda_i\), with a mean \(\mu\) over all directions. The mark's
    energy along eigenvector i, relative to that along a direction without inputs, is

    \[(1 + g_i)^2 = \min(1 + 3 \lambda_i / \mu, 32)\]

    for the 128 largest eigenvalues. Some 4,000 rows of randomly chosen examples are
    enough to measure them: 64 pictures, or as many vectors as there are.

    `keras_wm.attach` does this with its argument `inputs`, and keeps the anchor in the
    key. Measure before the mark is embedded: an anchor that depends on the key would
    make the p-value wrong.

    Args:
        model: A built Keras model, pretrained or trained for a few epochs.
        layer: The layer to mark, or its name: Dense, EinsumDense, Conv1D, Conv2D or
            Conv3D.
        inputs: A few hundred examples of the model's inputs, without labels: an array,
            or a list or dict of arrays.
        variable: Name of the layer's variable, as for `keras_wm.attach`.

    Returns:
        A `keras_wm.Anchor`. It reveals second moments of the inputs.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the layer or its kernel is not found, is of another class, or is
            not used by the model; or if all of its inputs are 0.

    Example:

    ```python
    anchor = keras_wm.measure_anchor(model, "block4_conv2", x[:512])
    regularizer = keras_wm.WatermarkRegularizer(key, anchor=anchor)
    ```
    """
    check_is_model(model)
    return _measured(model, [find_kernel(model, layer, variable)], inputs)[0]


def anchors_for(
    marks: Sequence[tuple[Any, Any, WatermarkKey]], model: Any, inputs: Any
) -> list[Anchor]:
    """Returns the anchors in the slots of some keys, or measures those of the kernels.

    Args:
        marks: The layer, the variable of its kernel, and the key in the kernel's slot.
        model: A built Keras model.
        inputs: Examples of the model's inputs.

    Raises:
        ValueError: As `measure_anchor`; or if a key's mark is found in its kernel, or a
            key is a recipient's.
    """
    missing = [mark for mark in marks if mark[2].anchor is None]
    for mark in missing:
        _check_may_measure(*mark)
    kernels = [mark[:2] for mark in missing]
    measured = iter(_measured(model, kernels, inputs) if kernels else ())
    return [key.anchor or next(measured) for *_, key in marks]


def _check_may_measure(layer: Any, kernel: Any, key: WatermarkKey) -> None:
    """Raises ValueError if an anchor of a kernel could depend on the key."""
    if key.recipient:
        raise ValueError(
            f"The key of the recipient {key.recipient!r} has no anchor in slot "
            f"{key.slot}. A recipient's mark has the owner's anchor, so that the owner "
            "can identify it. Use a slot in which the owner's key has an anchor, or "
            "leave out inputs=."
        )
    found = detect(keras.ops.convert_to_numpy(kernel), key)
    if found.log10_p < np.log10(_MARKED):
        raise ValueError(
            f"The kernel of {layer.name!r} carries the mark of this key in slot "
            f"{key.slot} already, without an anchor (p = 10^{found.log10_p:.1f}). An "
            "anchor that is measured now could depend on the key. Use another slot, or "
            "leave out inputs=."
        )


def _measured(
    model: Any, kernels: Sequence[tuple[Any, Any]], inputs: Any
) -> list[Anchor]:
    """Returns the anchors of some kernels, given their layers and variables."""
    readers = [KernelInputs.of(*pair) for pair in kernels]
    rng = np.random.default_rng(0)
    sketches = [_Sketch(reader, rng) for reader in readers]
    order = rng.permutation(count_examples(inputs))
    inputs = keras.tree.map_structure(lambda array: np.asarray(array)[order], inputs)
    for batch in sampled_rows(model, readers, inputs, ROWS_OF_EXAMPLE):
        for sketch, rows in zip(sketches, batch, strict=True):
            sketch.add(rows)
        if all(sketch.count >= ROWS for sketch in sketches):
            break
    return [sketch.anchor() for sketch in sketches]


class _Sketch:
    """The second moment C of the inputs of a kernel, as far as it has been seen.

    C is never in memory, only its products with random vectors.
    """

    def __init__(self, reader: KernelInputs, rng: np.random.Generator) -> None:
        self._reader, size = reader, reader.size
        shape = (size, min(size, DIRECTIONS + _MORE_VECTORS))
        self._vectors: Floats = rng.normal(size=shape)
        self._products, self._trace, self.count = np.zeros(shape), 0.0, 0

    def add(self, rows: Floats) -> None:
        """Adds rows of inputs, shape `(n, size)`."""
        wide = rows.astype(np.float64)
        self._products += wide.T @ (wide @ self._vectors)
        self._trace += float(np.square(wide).sum())
        self.count += len(rows)

    def anchor(self) -> Anchor:
        """Returns the anchor; raises ValueError if all inputs were 0, or not finite."""
        reader, trace, size = self._reader, self._trace, self._reader.size
        if not np.isfinite(trace) or not trace:
            raise ValueError(
                f"Expected examples that give the layer {reader.layer.name!r} finite "
                f"inputs that are not all 0. Received: {self.count} rows of inputs "
                f"with a mean square of {trace / max(self.count * size, 1):g}"
            )
        values, directions = _eigenpairs(self._products, self._vectors, DIRECTIONS)
        energies = np.minimum(1 + WEIGHT * values * size / trace, MOST_ENERGY)
        shape = reader.kernel.shape
        before = prod(shape[: reader.seen[0]])
        after = prod(shape[reader.seen[-1] + 1 : -1])
        return Anchor(np.sqrt(energies) - 1, directions, before, after)


def _eigenpairs(products: Floats, vectors: Floats, count: int) -> tuple[Floats, Floats]:
    """Returns the largest eigenvalues of a matrix C, and their vectors in columns.

    C is only known by its products with random vectors: the single-pass Nyström
    approximation of [Tropp et al. (2017)](https://arxiv.org/abs/1706.05736).

    Args:
        products: C times the vectors, shape `(m, k)`. C has no negative eigenvalue.
        vectors: Independent normal vectors, shape `(m, k)`.
        count: Number of eigenvalues, or fewer if k or the rank of C is smaller.
    """
    basis, upper = np.linalg.qr(vectors)
    images = np.linalg.solve(upper.T, products.T).T
    inner = basis.T @ images
    weights, axes = np.linalg.eigh((inner + inner.T) / 2)
    # If the inputs have a low rank, the smallest eigenvalues are rounding errors.
    kept = weights > _NEGLIGIBLE * weights[-1]
    left, singular, _ = np.linalg.svd(
        images @ (axes[:, kept] / np.sqrt(weights[kept])), full_matrices=False
    )
    return np.square(singular[:count]), left[:, :count]
