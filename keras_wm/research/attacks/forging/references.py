"""References, checkpoints and originals that are made for a key.

A reference decides in which order, and with which signs, a suspect's channels are read.
An innocent network whose channels are permuted into the order that a fresh key likes
computes the same as before. Presented as the forger's own model, it makes the innocent
network look marked.
"""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np

from keras_wm.research.attacks.architecture import arrays_of, assign, graph_of
from keras_wm.research.attacks.equivalence import Rewriter
from keras_wm.research.attacks.forging.forgery import Forgery, fresh_key
from keras_wm.scheme.kernel_key import KernelKey
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arrays import Floats


def crafted_network(model: Any, layer: str, key: WatermarkKey) -> Any:
    """Returns a copy of a network whose channels are in the order that a key likes.

    Args:
        model: A network whose channels can be followed.
        layer: Name of the layer whose filters are ordered for the key.
        key: The key.

    Raises:
        ValueError: If the order of the layer's filters cannot be changed.
    """
    from scipy.optimize import linear_sum_assignment

    graph, arrays = graph_of(model), arrays_of(model)
    kernel = arrays[layer, "kernel"]
    (part,) = graph.parts[(layer, "kernel"), -1]
    if graph.sets[part.set_id].fixed:
        raise ValueError(
            f"Expected a layer whose filters can be reordered. Received: {layer!r}"
        )
    mark = key.for_shape(kernel.shape)
    flat = kernel.reshape(mark.size, mark.count).astype(np.float64)
    units = flat / np.linalg.norm(flat, axis=0)
    positions = linear_sum_assignment(-units.T @ pattern(mark))[1]
    rewriter = Rewriter(graph, arrays, seed=0)
    rewriter.reorder(part.set_id, np.argsort(positions))
    crafted = copy_of(model)
    assign(crafted, rewriter.weights)
    return crafted


def pattern(mark: KernelKey) -> Floats:
    """Returns the sum of all s_j x_j a_j, shape `(M, L)`: the direction of the mark."""
    groups = np.arange(mark.bits) % mark.groups
    rows: Floats = mark.signs[:, None] * mark.matrix
    summed: Floats = rows.T @ mark.filter_weights[groups]
    return summed


def copy_of(model: Any) -> Any:
    """Returns a copy of a model."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def crafted_reference(model: Any, layer: str, seed: int) -> Forgery:
    """Presents a permuted copy of the innocent network as the forger's marked model."""
    begin = time.process_time()
    key = fresh_key(seed)
    arguments = {"reference": crafted_network(model, layer, key)}
    return Forgery(model, key, arguments, seconds=time.process_time() - begin)


def crafted_checkpoint(model: Any, layer: str, seed: int) -> Forgery:
    """Presents the permuted copy as the forger's network from before his mark."""
    begin = time.process_time()
    key = fresh_key(seed)
    arguments = {"checkpoint": crafted_network(model, layer, key)}
    return Forgery(model, key, arguments, seconds=time.process_time() - begin)


def marked_sibling(model: Any, layer: str, seed: int) -> Forgery:
    """Presents a marked sibling of the innocent network as the reference.

    The owner of both is honest, and the suspect has no mark. A reference whose norms
    know the key would shift its scores.
    """
    key = fresh_key(seed)
    sibling = copy_of(model)
    kernel = sibling.get_layer(layer).kernel
    kernel.assign(with_mark(np.asarray(kernel), key))
    return Forgery(model, key, {"reference": sibling, "layer": layer})


def with_mark(kernel: Floats, key: WatermarkKey) -> Floats:
    """Returns a kernel with a mark that is written into it, not trained."""
    mark = key.for_shape(kernel.shape)
    added = pattern(mark).reshape(kernel.shape)
    marked: Floats = kernel + 0.5 * kernel.std() / added.std() * added
    return marked
