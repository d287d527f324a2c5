"""Facts about a layer in its config that are needed to read its arrays.

They are only hints: a reading that does not fit the arrays is rejected, whatever the
config says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_wm.files.config.nodes import as_list, iterate_nodes, name_of, settings_of

# No LoRA alpha is larger. JSON also has integers that do not fit into a float, and NaN.
_LARGEST = 1e9
_MODE = re.compile(r"(int8|int4|float8|gptq|awq)(?![a-z0-9])")
# The equation of an EinsumDense layer, inputs,kernel->outputs, as in "abc,cde->abde".
_EQUATION = re.compile(
    r"((?:\.\.\.)?[a-zA-Z]{1,8}(?:\.\.\.)?),([a-zA-Z]{1,8})->(\S{1,16})"
)


@dataclass(frozen=True)
class LayerFacts:
    """Facts about a layer that its arrays do not contain.

    Attributes:
        mode: Quantization mode, such as `"int8"` or `"gptq"`; empty if unknown.
        lora_alpha: Factor of the LoRA update, before division by its rank.
        shapes: Shapes of the weights before they were packed, by name.
        scale_axes: Axes of the kernel along which the quantization scales differ, in
            the order of the axes of the scales.
    """

    mode: str = ""
    lora_alpha: float | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scale_axes: tuple[int, ...] | None = None

    @classmethod
    def from_config(cls, node: Any) -> LayerFacts:
        """Reads the facts in a layer's node.

        Args:
            node: Node of the layer in the model's config, which is not vetted.

        Returns:
            The facts that the node contains.
        """
        settings = settings_of(node)
        if not settings:
            return cls()
        return cls(
            mode=_quantization_mode(settings.get("dtype")),
            lora_alpha=_as_number(settings.get("lora_alpha")),
            shapes=_weight_shapes(settings, _input_shape(node)),
            scale_axes=(1,)
            if "units" in settings
            else _kept_axes(settings.get("equation")),
        )


NO_FACTS = LayerFacts()


def facts_by_name(config: Any) -> dict[str, LayerFacts]:
    """Returns the facts of all layers in a model's config, by layer name.

    A name has no facts if layers of different models share it and their facts differ.
    """
    facts_of: dict[str, LayerFacts] = {}
    for node in iterate_nodes(config):
        name = name_of(node)
        if name is not None:
            facts = LayerFacts.from_config(node)
            facts_of[name] = facts if facts_of.get(name, facts) == facts else NO_FACTS
    return facts_of


def _quantization_mode(policy: Any) -> str:
    """Returns the mode of a dtype policy.

    A policy is `"int8_from_float32"` or `{"config": {"mode": "int4/128", ...}}`.
    """
    settings = settings_of(policy)
    if settings:
        policy = settings.get("mode", settings.get("name"))
    match = _MODE.match(policy) if isinstance(policy, str) else None
    return match[1] if match else ""


def _labels(equation: Any) -> tuple[str | Any, ...] | None:
    """Returns the labels of an einsum's inputs, kernel and outputs."""
    match = _EQUATION.fullmatch(equation) if isinstance(equation, str) else None
    return match.groups() if match else None


def _kept_axes(equation: Any) -> tuple[int, ...] | None:
    """Returns the axes of an einsum's kernel that the output keeps, in its order."""
    labels = _labels(equation)
    if labels is None:
        return None
    _, kernel, output = labels
    return tuple(
        kernel.index(label) for label in dict.fromkeys(output) if label in kernel
    )


def _input_shape(node: dict[str, Any]) -> list[Any]:
    """Returns the shape of a layer's input, or an empty list.

    A legacy file contains the config of a functional model, which has no build config
    but lists the tensors that each layer is called on.
    """
    build = node.get("build_config")
    if isinstance(build, dict):
        return as_list(build.get("input_shape"))
    return as_list(_first_tensor(node.get("inbound_nodes")).get("shape"))


def _first_tensor(calls: Any) -> dict[str, Any]:
    call = next(iter(as_list(calls)), None)
    args = as_list(call.get("args")) if isinstance(call, dict) else []
    return settings_of(next(iter(args), None))


def _weight_shapes(
    settings: dict[str, Any], inputs: list[Any]
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the weights of a Dense, Embedding or EinsumDense layer."""
    shapes = {
        "kernel": [*inputs[-1:], settings.get("units")],
        "embeddings": [settings.get("input_dim"), settings.get("output_dim")],
        "reverse_embeddings": [settings.get("output_dim"), settings.get("input_dim")],
    }
    if "equation" in settings:
        shapes["kernel"] = _einsum_kernel_shape(settings, inputs)
    return {
        name: tuple(shape)
        for name, shape in shapes.items()
        if len(shape) > 1 and all(type(axis) is int for axis in shape)
    }


def _einsum_kernel_shape(settings: dict[str, Any], inputs: list[Any]) -> list[Any]:
    equation = _labels(settings["equation"])
    if equation is None:
        return []
    input_labels, kernel_labels, output_labels = equation
    outputs = settings.get("output_shape")
    outputs = [None, *(outputs if isinstance(outputs, list) else [outputs])]
    sizes: dict[str, Any] = {}
    for labels, shape in ((input_labels, inputs), (output_labels, outputs)):
        if labels.startswith("..."):
            pairs = zip(reversed(labels[3:]), reversed(shape), strict=False)
        else:
            pairs = zip(labels.removesuffix("..."), shape, strict=False)
        sizes.update(pairs)
    return [sizes.get(label) for label in kernel_labels]


def _as_number(value: Any) -> float | None:
    valid = type(value) in (int, float) and abs(value) <= _LARGEST
    return float(value) if valid else None
