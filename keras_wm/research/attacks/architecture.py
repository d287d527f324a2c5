"""A network's architecture: what an attacker makes anew of it, and its head."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from keras_wm.embedding.marked_layers import is_built, sublayers
from keras_wm.research.attacks.kernels import kernels_by_layer


def fresh_network(model: Any) -> Any:
    """A network of the same architecture, its weights drawn anew.

    They are drawn as the layers' initializers say, but for seeds that these were
    given: with them the weights would be those that the first training began with.

    Raises:
        ValueError: If the model's config does not tell all of its layers.
    """
    network = type(model).from_config(config_without(model.get_config(), "seed"))
    if not is_built(network):
        raise ValueError(
            "Expected a Functional or Sequential model, whose config tells its "
            f"layers. Received: {type(model).__name__}"
        )
    return network


def reinitialize(model: Any, layers: Collection[Any]) -> None:
    """Draws the weights of some layers of a model anew."""
    chosen = {id(inner) for layer in layers for inner in sublayers(layer)}
    pairs = zip(sublayers(model), sublayers(fresh_network(model)), strict=True)
    for layer, other in pairs:
        if id(layer) in chosen:
            layer.set_weights(other.get_weights())


def head_of(model: Any) -> Any:
    """The layer that gives the answers: the last one with a kernel.

    Raises:
        ValueError: If its filters are not the answers.
    """
    pairs = kernels_by_layer(model)
    if pairs and pairs[-1][1].shape[-1] == model.output_shape[-1]:
        return pairs[-1][0]
    last = f"{pairs[-1][0].name!r}" if pairs else "none"
    raise ValueError(
        "Expected a head: a last layer with a kernel that has a filter for each "
        f"answer. Received: {model.name!r}, whose outputs have the shape "
        f"{model.output_shape} and whose last layer with a kernel is {last}."
    )


def node_of(config: Any, name: str) -> Any:
    """A layer's entry in a model's config."""
    return next(one for one in config["layers"] if one["config"].get("name") == name)


def config_without(config: Any, *names: str) -> Any:
    """A config without some settings, however deep they are."""
    if isinstance(config, dict):
        return {
            key: config_without(value, *names)
            for key, value in config.items()
            if key not in names
        }
    if type(config) is list:
        return [config_without(one, *names) for one in config]
    return config
