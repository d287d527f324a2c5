"""Fusion: batch normalizations are folded into the layers before them.

Compilers do this to every network before it is deployed. The outputs stay the same,
but each filter of the kernel has been multiplied by its own factor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.alignment.tracing import DEPTHWISE_LAYERS, KERNEL_LAYERS
from keras_wm.files.config.calls import Call, Tensor, calls_in
from keras_wm.files.config.nodes import find_layer, rewrite
from keras_wm.research.attacks.architecture import WeightName, arrays_of, assign
from keras_wm.research.attacks.attack import Attack

Weights = dict[WeightName, NDArray[Any]]

_CHANNELS_LAST = "channels_last"
_FOLDABLE = KERNEL_LAYERS | DEPTHWISE_LAYERS


def fold(model: Any) -> Any:
    r"""Returns a network without the normalizations that can be folded away.

    A normalization directly after a convolution or dense layer (W, c) that has no
    activation, and whose output is used nowhere else, becomes

    \[W' = f W, \quad c' = f (c - \mu) + \beta,
    \quad f = \gamma / \sqrt{\sigma^2 + \epsilon}.\]

    Args:
        model: A Functional or Sequential model, which is not changed.

    Returns:
        A `keras.Model` with fewer layers and the same outputs.

    Raises:
        ValueError: If there is nothing to fold.
    """
    config = model.get_config()
    weights = arrays_of(model)
    pairs = list(_pairs(config, weights))
    if not pairs:
        raise ValueError(
            "Expected a Functional or Sequential model with a batch normalization "
            "directly after a convolution or dense layer that has no activation and "
            "whose output is used nowhere else. "
            f"Received: {model.name!r}, which has none"
        )
    for call, normalization in pairs:
        _fold_weights(weights, call, normalization)
        _remove(config, call, normalization)
    folded = type(model).from_config(config)
    assign(folded, weights)
    return folded


def _pairs(config: Any, weights: Weights) -> Iterator[tuple[Call, Call]]:
    """Yields each layer with the normalization that can be folded into it."""
    model = calls_in(config)
    if model is None:
        return
    call_counts = Counter(call.layer for call in model.calls)
    use_counts = Counter(model.outputs)
    users: dict[Tensor, Call] = {}
    for call in model.calls:
        use_counts.update(call.inputs)
        users |= dict.fromkeys(call.inputs, call)
    for call in model.calls:
        user = users.get(call.output)
        if (
            user is not None
            and use_counts[call.output] == 1
            and call_counts[call.layer] == call_counts[user.layer] == 1
            and _split(call)[0] == _split(user)[0]
            and _is_linear(call, weights)
            and _normalizes_channels(user, len(weights[call.layer, "kernel"].shape))
            and not _always_trains(config, user)
        ):
            yield call, user


def _is_linear(call: Call, weights: Weights) -> bool:
    """Returns whether a call applies a kernel and perhaps a bias, and nothing else."""
    names = {name for layer, name in weights if layer == call.layer}
    return (
        call.kind in _FOLDABLE
        and call.understood
        and call.config.get("activation") in (None, "linear")
        and call.config.get("data_format", _CHANNELS_LAST) == _CHANNELS_LAST
        # LoRA factors and quantized kernels have other names.
        and "kernel" in names
        and names <= {"kernel", "bias"}
    )


def _normalizes_channels(call: Call, rank: int) -> bool:
    """Returns whether a call normalizes the filters of a kernel of this rank."""
    # The output of a dense layer can have any rank, so only axis -1 is certain.
    last = (-1, rank - 1) if rank > 2 else (-1,)
    axis = call.config.get("axis", -1)
    return (
        call.kind == "BatchNormalization"
        and call.understood
        and (axis[0] if isinstance(axis, (list, tuple)) else axis) in last
    )


def _always_trains(config: Any, call: Call) -> bool:
    """Returns whether a normalization always uses the statistics of the batch."""
    nodes = find_layer(config, call.layer).get("inbound_nodes") or [{}]
    return bool(nodes[0].get("kwargs", {}).get("training"))


def _fold_weights(weights: Weights, call: Call, normalization: Call) -> None:
    def weight(name: str, default: float) -> NDArray[Any]:
        values = weights.get((normalization.layer, name), np.full(1, default))
        return values.astype(np.float64)

    epsilon = normalization.config["epsilon"]
    factor = weight("gamma", 1) / np.sqrt(weight("moving_variance", 1) + epsilon)
    kernel = weights[call.layer, "kernel"]
    bias = weights.get((call.layer, "bias"), np.zeros(1))
    # A depthwise kernel has its filters on two axes: channels and multipliers.
    filters = kernel.shape[-2:] if call.kind in DEPTHWISE_LAYERS else kernel.shape[-1:]
    weights[call.layer, "kernel"] = kernel * factor.reshape(filters)
    shift = (bias - weight("moving_mean", 0)) * factor + weight("beta", 0)
    weights[call.layer, "bias"] = shift


def _remove(config: Any, call: Call, normalization: Call) -> None:
    """Removes a normalization from a model's config, and gives the layer a bias."""
    find_layer(config, call.layer)["config"]["use_bias"] = True
    folder, layer = _split(call)
    _, removed = _split(normalization)
    model = find_layer(config, folder)["config"] if folder else config
    model["layers"].remove(find_layer(model, removed))

    def redirected(part: Any) -> Any:
        if isinstance(part, tuple):
            part = list(part)
        return [layer, 0, 0] if part == [removed, 0, 0] else part

    for entry in model["layers"]:
        if "inbound_nodes" in entry:
            entry["inbound_nodes"] = rewrite(entry["inbound_nodes"], redirected)
    if "output_layers" in model:
        model["output_layers"] = rewrite(model["output_layers"], redirected)


def _split(call: Call) -> tuple[str, str]:
    """Returns the path of the model that a layer is nested in, and the layer's name."""
    folder, _, name = call.layer.rpartition("/")
    return folder, name


FUSION = Attack(
    "fusion",
    "Folds batch normalizations into the layers before them.",
    "share of the foldable normalizations",
    (1.0,),
    lambda model, *_: fold(model),
)
