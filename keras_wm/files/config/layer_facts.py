"""What a layer's config tells about how its arrays are to be read.

A hint, never more: a reading that the arrays do not fit is not made, whatever the
config says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_LARGEST = 1e9
_MODE = re.compile(r"(int8|int4|float8|gptq|awq)(?![a-z0-9])")
_EQUATION = re.compile(r"(?:\.\.\.)?([a-zA-Z]{1,8})(\.\.\.)?,([a-zA-Z]{1,8})->\S{1,16}")


@dataclass(frozen=True)
class LayerFacts:
    """What is known of a layer besides its arrays.

    Attributes:
        mode: How it is quantized: `"int8"`, `"gptq"` and so on; an empty string
            where that is not known.
        lora_alpha: What LoRA's change is multiplied by, times its rank.
        shapes: The shapes of its weights before they were packed, by their names.
        scale_axes: The axes of the kernel along which its scales differ, in the
            order of the scales' own axes.
    """

    mode: str = ""
    lora_alpha: float | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scale_axes: tuple[int, ...] | None = None

    @classmethod
    def from_config(cls, node: Any) -> LayerFacts:
        """The facts in a layer's node of a model's config.

        Args:
            node: The node; nothing about it is taken for granted.

        Returns:
            The facts, as far as the node tells them.
        """
        config = node.get("config") if isinstance(node, dict) else None
        if not isinstance(config, dict):
            return cls()
        axes = (1,) if "units" in config else _kept_axes(config.get("equation"))
        return cls(
            mode=quantization_mode(config.get("dtype")),
            lora_alpha=_number(config.get("lora_alpha")),
            shapes=_shapes(config, _input_shape(node)),
            scale_axes=axes,
        )


NO_FACTS = LayerFacts()


def facts_by_name(config: Any) -> dict[str, LayerFacts]:
    """The facts of every layer in a model's config, by the layers' names.

    Layers of different models may have one name; they are left out.
    """
    found: dict[str, LayerFacts] = {}
    waiting = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            settings = node.get("config")
            name = settings.get("name") if isinstance(settings, dict) else None
            if isinstance(name, str):
                facts = LayerFacts.from_config(node)
                found[name] = facts if found.get(name, facts) == facts else NO_FACTS
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return found


def quantization_mode(policy: Any) -> str:
    """How a dtype policy quantizes: `"int4"` of `{"config": {"mode": "int4/128"}}`."""
    if isinstance(policy, dict) and isinstance(policy.get("config"), dict):
        config = policy["config"]
        policy = config.get("mode", config.get("name"))
    match = _MODE.match(policy) if isinstance(policy, str) else None
    return match[1] if match else ""


def _kept_axes(equation: Any) -> tuple[int, ...] | None:
    """The axes of an einsum's kernel that its output keeps, in the output's order."""
    match = _EQUATION.fullmatch(equation) if isinstance(equation, str) else None
    if match is None:
        return None
    kernel, output = match[3], equation.partition("->")[2]
    return tuple(
        kernel.index(label) for label in dict.fromkeys(output) if label in kernel
    )


def _input_shape(node: dict[str, Any]) -> list[Any]:
    """The shape of a layer's input; without a build config, of the tensor it is given.

    A legacy file has the config of a functional model, which tells the tensors.
    """
    build = node.get("build_config")
    if isinstance(build, dict):
        shape = build.get("input_shape")
    else:
        shape = _first_tensor(node.get("inbound_nodes")).get("shape")
    return shape if isinstance(shape, list) else []


def _first_tensor(calls: Any) -> dict[str, Any]:
    call = calls[0] if isinstance(calls, list) and calls else None
    args = call.get("args") if isinstance(call, dict) else None
    tensor = args[0] if isinstance(args, list) and args else None
    config = tensor.get("config") if isinstance(tensor, dict) else None
    return config if isinstance(config, dict) else {}


def _shapes(config: dict[str, Any], inputs: list[Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of weights, by the arguments of Dense, Embedding and EinsumDense."""
    shapes = {
        "kernel": [*inputs[-1:], config.get("units")],
        "embeddings": [config.get("input_dim"), config.get("output_dim")],
        "reverse_embeddings": [config.get("output_dim"), config.get("input_dim")],
    }
    if "equation" in config:
        shapes["kernel"] = _einsum_kernel(config, inputs)
    return {
        name: tuple(shape)
        for name, shape in shapes.items()
        if len(shape) > 1 and all(type(axis) is int for axis in shape)
    }


def _einsum_kernel(config: dict[str, Any], inputs: list[Any]) -> list[Any]:
    equation, outputs = config["equation"], config.get("output_shape")
    match = _EQUATION.fullmatch(equation) if isinstance(equation, str) else None
    if match is None:
        return []
    outputs = [None, *(outputs if isinstance(outputs, list) else [outputs])]
    sizes: dict[str, Any] = {}
    for labels, shape in (
        (equation.partition(",")[0], inputs),
        (equation.partition("->")[2], outputs),
    ):
        if labels.startswith("..."):
            pairs = zip(reversed(labels[3:]), reversed(shape), strict=False)
        else:
            pairs = zip(labels.removesuffix("..."), shape, strict=False)
        sizes.update(pairs)
    return [sizes.get(label) for label in match[3]]


def _number(value: Any) -> float | None:
    # JSON has integers that no float holds, and NaN.
    known = type(value) in (int, float) and abs(value) <= _LARGEST
    return float(value) if known else None
