"""Following the channels of a network from layer to layer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from keras_wm.alignment.channel_graph import (
    ChannelGraph,
    ChannelGraphBuilder,
    Layout,
    Role,
    WeightName,
)
from keras_wm.files.config.calls import Call, Tensor, calls_in

Shapes = Mapping[WeightName, tuple[int, ...]]

# Layers with the axes of their kernel (..., inputs, filters).
KERNEL_LAYERS = {"Dense", "Conv1D", "Conv2D", "Conv3D"}
# Layers with the axes of their kernel (..., channels, filters per channel).
DEPTHWISE_LAYERS = {"DepthwiseConv1D", "DepthwiseConv2D"}
# Activations with f(s x) = s f(x) for s > 0. Layers of activations have the same names
# with capitals.
_HOMOGENEOUS = {"relu", "leaky_relu", "ReLU", "LeakyReLU"}
# Activations with f(-x) = -f(x).
_ODD = {"tanh", "softsign"}
# Activations that act on each channel separately, with neither property.
_ELEMENTWISE = {
    *("elu", "ELU", "celu", "selu", "gelu", "silu", "swish", "mish", "softplus"),
    *("sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "exponential", "relu6"),
    *("log_sigmoid", "squareplus", "hard_tanh", "tanh_shrink", "sparse_plus"),
}
# Layers that are linear in each channel separately.
_LINEAR = re.compile(
    "(Alpha|Gaussian)?Dropout|GaussianNoise|Identity|ActivityRegularization|"
    "(SpatialDropout|(Global)?AveragePooling|ZeroPadding|Cropping|UpSampling)[123]D"
)
_MAX_POOLING = re.compile("(Global)?MaxPooling[123]D")
# Layers that combine several inputs. Keras's operations on tensors have the same names
# in a config.
_SUMS = {"Add", "Average", "Subtract"}
_EXTREMA = {"Maximum", "Minimum"}
_CHANNELS_LAST = (-1, [-1], 3, [3], 4, [4])

# A malicious config can concatenate a tensor with itself again and again, which doubles
# the number of its parts each time.
_MAX_PARTS = 10_000


def trace_channels(config: Any, shapes: Shapes) -> ChannelGraph | None:
    """Builds the channel graph of a network.

    Args:
        config: Model config: the content of `config.json`, or `model.get_config()`.
        shapes: Shapes of the weights, by the names of their layers (`"model/layer"` in
            nested models) and variables. Only these weights are in the graph.

    Returns:
        A `ChannelGraph`, or `None` if the config does not show how the layers are
        connected. The inputs and outputs of unknown layers are fixed.
    """
    calls = calls_in(config)
    if calls is None:
        return None
    tracer = _Tracer(shapes)
    layouts: dict[Tensor, Layout | None] = {}
    for call in calls.calls:
        inputs = [layouts[tensor] for tensor in call.inputs]
        layouts[call.output] = tracer.trace(call, inputs)
    for layer, tensor in calls.entered:
        tracer.add_nested_input(layouts[tensor], layer)
    for tensor in calls.outputs:
        tracer.freeze(layouts[tensor])
    return tracer.build()


class _Tracer(ChannelGraphBuilder):
    """Follows channels through the calls of a network, in the order of the calls.

    A method that returns `None` cannot follow the channels of its output.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self._shapes = shapes
        # The first input and the output of each layer with weights. If the layer is
        # called again, its weights are used for the same channels.
        self._first_inputs: dict[str, Layout | None] = {}
        self._outputs: dict[str, Layout] = {}

    def trace(self, call: Call, inputs: Sequence[Layout | None]) -> Layout | None:
        """Returns the layout of a call's output; None if it cannot be followed.

        In that case the order, scale and signs of its inputs become fixed.
        """
        output = self._output(call, inputs) if call.understood else None
        if output is None:
            for layout in (*inputs, self._outputs.get(call.layer)):
                self.freeze(layout)
        return output

    def _output(self, call: Call, inputs: Sequence[Layout | None]) -> Layout | None:
        if call.kind == "InputLayer":
            return self._input(call)
        config = call.config
        if config.get("data_format", "channels_last") == "channels_first":
            return None
        known = [layout for layout in inputs if layout is not None]
        if call.kind in _SUMS | _EXTREMA | {"Concatenate"}:
            return self._combined(call, known) if len(known) == len(inputs) else None
        if call.kind in KERNEL_LAYERS and config.get("groups", 1) == 1:
            return self._with_kernel(call, known[0] if known else None)
        if len(known) == len(inputs) == 1:
            return self._with_one_input(call, known[0])
        return None

    def _with_one_input(self, call: Call, layout: Layout) -> Layout | None:
        if call.kind in DEPTHWISE_LAYERS:
            return self._depthwise(call, layout)
        if call.kind == "BatchNormalization":
            return self._normalized(call, layout)
        if call.kind == "Flatten":
            return replace(layout, flattened=True)
        if _LINEAR.fullmatch(call.kind):
            return layout
        if _MAX_POOLING.fullmatch(call.kind):
            return self.restrict(layout, may_scale=True)
        return self._activation(call, layout)

    def _input(self, call: Call) -> Layout | None:
        shape = call.config.get("batch_shape", call.config.get("batch_input_shape"))
        count = shape[-1] if isinstance(shape, (list, tuple)) and shape else None
        if not isinstance(count, int) or count < 1:
            return None
        layout = self.add_channels(count)
        self.freeze(layout)
        return layout

    def _with_kernel(self, call: Call, layout: Layout | None) -> Layout | None:
        shape = self._shape(call, "kernel")
        if len(shape) < 2:
            return None
        if self._same_as_before(call, layout) and layout is not None:
            repeats, rest = divmod(shape[-2], layout.count)
            if rest or not (layout.flattened or repeats == 1):
                self.freeze(layout)
            else:
                self.add_member(layout, call.layer, "kernel", -2, "in", repeats)
        if call.layer not in self._outputs:
            output = self.add_channels(shape[-1])
            self._add_members(call, output, "out", "kernel", "bias")
            self._outputs[call.layer] = output
        return self._activated(call.config.get("activation"), self._outputs[call.layer])

    def _depthwise(self, call: Call, layout: Layout) -> Layout | None:
        # Keras 3 has the first name, Keras 2 the second.
        name = "kernel" if self._shape(call, "kernel") else "depthwise_kernel"
        if self._shape(call, name)[-2:] != (layout.count, 1):
            return None
        if not self._same_as_before(call, layout):
            return None
        if call.layer not in self._outputs:
            output = self.add_segments(layout)
            self.add_member(layout, call.layer, name, -2, "in")
            self.add_member(output, call.layer, name, -2, "out")
            self._add_members(call, output, "out", "bias")
            self._outputs[call.layer] = output
        return self._activated(call.config.get("activation"), self._outputs[call.layer])

    def _normalized(self, call: Call, layout: Layout) -> Layout | None:
        if layout.flattened or call.config.get("axis", -1) not in _CHANNELS_LAST:
            return None
        if not self._same_as_before(call, layout):
            return None
        if call.layer not in self._outputs:
            output = self.add_segments(layout)
            self._add_members(call, layout, "mean", "moving_mean")
            self._add_members(call, layout, "variance", "moving_variance")
            self._add_members(call, layout, "sign", "gamma")
            self._add_members(call, output, "out", "gamma", "beta")
            if not call.config.get("scale", True):
                # No gamma can compensate a sign flip of the input or a scaling of the
                # output.
                self.restrict(layout)
                self.restrict(output)
            self._outputs[call.layer] = output
        return self._outputs[call.layer]

    def _combined(self, call: Call, layouts: list[Layout]) -> Layout | None:
        if not layouts:
            return None
        if call.kind == "Concatenate":
            flattened = any(layout.flattened for layout in layouts)
            if flattened or call.config.get("axis", -1) not in (-1, 3):
                return None
            parts = tuple(part for layout in layouts for part in layout.parts)
            return Layout(parts) if len(parts) <= _MAX_PARTS else None
        first, *others = layouts
        if any(layout.sizes != first.sizes for layout in others):
            return None
        for layout in others:
            self.merge(first, layout)
        if call.kind in _EXTREMA:
            self.restrict(first, may_scale=True)
        return first

    def _activation(self, call: Call, layout: Layout) -> Layout | None:
        if call.kind == "Activation":
            return self._activated(call.config.get("activation"), layout)
        bounded = call.config.get("max_value") or call.config.get("threshold")
        name = "relu6" if call.kind == "ReLU" and bounded else call.kind
        known = name in _HOMOGENEOUS | _ODD | _ELEMENTWISE
        return self._activated(name, layout) if known else None

    def _activated(self, activation: Any, layout: Layout) -> Layout | None:
        """Returns the layout after an activation, given by its name in a config."""
        if activation in (None, "linear"):
            return layout
        if not isinstance(activation, str):
            return None
        if activation in _HOMOGENEOUS:
            return self.restrict(layout, may_scale=True)
        if activation in _ODD:
            return self.restrict(layout, may_flip=True)
        if activation in _ELEMENTWISE:
            return self.restrict(layout)
        # It may mix channels, as softmax does.
        self.freeze(layout)
        return layout

    def _same_as_before(self, call: Call, layout: Layout | None) -> bool:
        """Returns whether all calls of a layer have inputs with the same channels.

        If they can have, the channels of this input and of the first one are merged.
        """
        first = self._first_inputs.setdefault(call.layer, layout)
        if first is None or layout is None or first.sizes != layout.sizes:
            self.freeze(first)
            self.freeze(layout)
            return False
        self.merge(first, layout)
        return True

    def _add_members(
        self, call: Call, layout: Layout, role: Role, *variables: str
    ) -> None:
        """Adds the last axes of those variables that the layer has."""
        for variable in variables:
            if self._shape(call, variable):
                self.add_member(layout, call.layer, variable, -1, role)

    def _shape(self, call: Call, variable: str) -> tuple[int, ...]:
        return self._shapes.get((call.layer, variable), ())
