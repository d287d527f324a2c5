"""Fusion: batch normalizations are folded into the layers before them.

Compilers do that to every network that is put to use: what is left is another kernel,
each filter multiplied by a factor of its own, for the same answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.files.config.calls import Call, Tensor, calls_in
from keras_wm.research.attacks.architecture import node_of
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.attacks.equivalence import weights_of
from keras_wm.research.datasets import Examples

Weights = dict[tuple[str, str], NDArray[Any]]

_CHANNELS_LAST = "channels_last"
_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
_FOLDABLE = ("Dense", "Conv1D", "Conv2D", "Conv3D", *_DEPTHWISE)


def fold(model: Any) -> Any:
    r"""A network without the normalizations that can be folded away.

    A normalization behind a convolution or dense layer W, c that has no activation
    and whose output nothing else uses becomes

    \[W' = f W, \quad c' = f (c - \mu) + \beta,
    \quad f = \gamma / \sqrt{\sigma^2 + \epsilon}.\]

    Args:
        model: A Functional or Sequential model; it is left as it is.

    Returns:
        A `keras.Model` that answers the same, of fewer layers.

    Raises:
        ValueError: If there is nothing to fold.
    """
    config = model.get_config()
    weights: Weights = {
        name: np.asarray(variable) for name, variable in weights_of(model).items()
    }
    pairs = list(_pairs(config, weights))
    if not pairs:
        raise ValueError(
            "Expected a Functional or Sequential model with a batch normalization "
            "right behind a convolution or dense layer that has no activation and "
            f"that nothing else uses. Received: {model.name!r}, which has none"
        )
    for layer, normalization in pairs:
        _fold_weights(weights, layer, normalization)
        _remove(config, layer.layer.split("/"), _name(normalization))
    folded = type(model).from_config(config)
    for name, variable in weights_of(folded).items():
        variable.assign(weights[name])
    return folded


def _pairs(config: Any, weights: Weights) -> Iterator[tuple[Call, Call]]:
    """The layers with a normalization that can be folded into them."""
    found = calls_in(config)
    if found is None:
        return
    times = Counter(call.layer for call in found.calls)
    uses = Counter(found.outputs)
    users: dict[Tensor, Call] = {}
    for call in found.calls:
        uses.update(call.inputs)
        users |= dict.fromkeys(call.inputs, call)
    for call in found.calls:
        user = users.get(call.output)
        if (
            user is not None
            and uses[call.output] == times[call.layer] == times[user.layer] == 1
            and _folder(call) == _folder(user)
            and _is_linear(call, weights)
            and _is_plain(user, len(weights[call.layer, "kernel"].shape))
            and not _always_trains(config, user.layer.split("/"))
        ):
            yield call, user


def _is_linear(call: Call, weights: Weights) -> bool:
    """Whether a call only adds a bias to what it makes with its kernel."""
    names = {name for layer, name in weights if layer == call.layer}
    return (
        call.kind in _FOLDABLE
        and call.understood
        and call.config.get("activation") in (None, "linear")
        and call.config.get("data_format", _CHANNELS_LAST) == _CHANNELS_LAST
        # Not so with LoRA's factors, or quantized.
        and "kernel" in names
        and names <= {"kernel", "bias"}
    )


def _is_plain(call: Call, rank: int) -> bool:
    """Whether a call normalizes the channels of what a kernel of that rank makes."""
    # A dense layer's output may have any rank, so only its last axis is sure.
    last = (-1, rank - 1) if rank > 2 else (-1,)
    axis = call.config.get("axis", -1)
    return (
        call.kind == "BatchNormalization"
        and call.understood
        and (axis[0] if isinstance(axis, (list, tuple)) else axis) in last
    )


def _always_trains(config: Any, path: list[str]) -> bool:
    """Whether a layer is called with `training=True`, and heeds no average."""
    node = node_of(config, path[0])
    if len(path) > 1:
        return _always_trains(node["config"], path[1:])
    called = node.get("inbound_nodes") or [{}]
    return bool(called[0].get("kwargs", {}).get("training"))


def _fold_weights(weights: Weights, call: Call, normalization: Call) -> None:
    def of(name: str, default: float) -> NDArray[Any]:
        found = weights.get((normalization.layer, name), np.full(1, default))
        return found.astype(np.float64)

    epsilon = normalization.config["epsilon"]
    factor = of("gamma", 1) / np.sqrt(of("moving_variance", 1) + epsilon)
    kernel = weights[call.layer, "kernel"]
    bias = weights.get((call.layer, "bias"), np.zeros(1))
    # A depthwise kernel has its filters on two axes: by channel and multiplier.
    filters = kernel.shape[-2:] if call.kind in _DEPTHWISE else kernel.shape[-1:]
    weights[call.layer, "kernel"] = kernel * factor.reshape(filters)
    shift = (bias - of("moving_mean", 0)) * factor + of("beta", 0)
    weights[call.layer, "bias"] = shift


def _remove(config: Any, path: list[str], normalization: str) -> None:
    """Takes a normalization out of a model's config; the layer gets a bias."""
    settings = node_of(config, path[0])["config"]
    if len(path) > 1:
        _remove(settings, path[1:], normalization)
        return
    settings["use_bias"] = True
    config["layers"].remove(node_of(config, normalization))
    for node in config["layers"]:
        if "inbound_nodes" in node:
            node["inbound_nodes"] = _redirected(
                node["inbound_nodes"], normalization, path[0]
            )
    if "output_layers" in config:
        config["output_layers"] = _redirected(
            config["output_layers"], normalization, path[0]
        )


def _redirected(value: Any, old: str, new: str) -> Any:
    """References to a layer's output, with another layer in its place."""
    if isinstance(value, dict):
        return {name: _redirected(one, old, new) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        if tuple(value[:1]) == (old,) and list(value[1:]) == [0, 0]:
            return [new, 0, 0]
        return [_redirected(one, old, new) for one in value]
    return value


def _folder(call: Call) -> str:
    """The model inside the model that a layer is in."""
    return call.layer.rpartition("/")[0]


def _name(call: Call) -> str:
    return call.layer.rpartition("/")[2]


def _fused(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
    return fold(model)


FUSION = Attack(
    "fusion",
    "Folds batch normalizations into the layers before them.",
    "share of the normalizations that can be",
    (1.0,),
    _fused,
)
