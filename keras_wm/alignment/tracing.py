"""Following channels from layer to layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from keras_wm.alignment.channel_graph import ChannelGraph
from keras_wm.alignment.drafting import Draft, Layout
from keras_wm.files.config.calls import Call, Tensor, calls_in

# The shapes of weights, by layer and by their names in it.
Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]
Rule = Callable[[Call, Layout], Layout | None]

# f(s x) = s f(x) for s > 0.
_HOMOGENEOUS = {"relu", "leaky_relu", "ReLU", "LeakyReLU"}
# f(-x) = -f(x).
_ODD = {"tanh", "softsign"}
# Each channel by itself; layers have the same names with capitals.
_ELEMENTWISE = {
    *("elu", "ELU", "celu", "selu", "gelu", "silu", "swish", "mish", "softplus"),
    *("sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "exponential", "relu6"),
    *("log_sigmoid", "squareplus", "hard_tanh", "tanh_shrink", "sparse_plus"),
}
# Linear in each channel by itself.
_LINEAR = {
    *("Dropout", "GaussianDropout", "AlphaDropout", "GaussianNoise", "Identity"),
    "ActivityRegularization",
    *(f"SpatialDropout{rank}D" for rank in (1, 2, 3)),
    *(f"AveragePooling{rank}D" for rank in (1, 2, 3)),
    *(f"GlobalAveragePooling{rank}D" for rank in (1, 2, 3)),
    *(f"ZeroPadding{rank}D" for rank in (1, 2, 3)),
    *(f"Cropping{rank}D" for rank in (1, 2, 3)),
    *(f"UpSampling{rank}D" for rank in (1, 2, 3)),
}
_LARGEST = {
    *(f"MaxPooling{rank}D" for rank in (1, 2, 3)),
    *(f"GlobalMaxPooling{rank}D" for rank in (1, 2, 3)),
}
WITH_KERNEL = {"Dense", "Conv1D", "Conv2D", "Conv3D"}
DEPTHWISE = {"DepthwiseConv1D", "DepthwiseConv2D"}
# Layers; and Keras's operations on tensors, which stand among them in a config.
_SUMS = {"Add", "Average", "Subtract"}
_PICKS = {"Maximum", "Minimum"}
_CHANNELS_LAST = (-1, [-1], 3, [3], 4, [4])


def channel_graph(config: Any, shapes: Shapes) -> ChannelGraph | None:
    """Finds where a network's channels are made and used.

    Args:
        config: A model's config: what `config.json` holds, or `model.get_config()`.
        shapes: The shapes of its weights, by layer (of models inside it,
            `"model/layer"`) and by their names in it. Weights that are left out are
            not in the graph.

    Returns:
        A `ChannelGraph`, or `None` where the config does not tell how the layers are
        connected. Channels in front of or behind a layer that is not known are fixed.
    """
    calls = calls_in(config)
    if calls is None:
        return None
    draft = Draft()
    tracing = _Tracing(draft, shapes)
    layouts: dict[Tensor, Layout | None] = {}
    for call in calls.calls:
        inputs = [layouts[one] for one in call.inputs]
        layouts[call.output] = tracing.trace(call, inputs)
    for layer, one in calls.entered:
        draft.enter(layouts[one], layer)
    for one in calls.outputs:
        draft.freeze(layouts[one])
    return draft.finished()


class _Tracing:
    """Follows channels along the calls of a network.

    Args:
        draft: What is known of them so far.
        shapes: As for `channel_graph`.
    """

    def __init__(self, draft: Draft, shapes: Shapes) -> None:
        self._draft = draft
        self._shapes = shapes
        # Of layers with weights: what they were called on first, and what they gave.
        self._taken: dict[str, Layout | None] = {}
        self._given: dict[str, Layout | None] = {}

    def trace(self, call: Call, inputs: Sequence[Layout | None]) -> Layout | None:
        """What a call gives; what it cannot follow keeps its order, scale and sign."""
        output = self._output(call, inputs) if call.understood else None
        if output is None:
            for layout in (*inputs, self._given.get(call.layer)):
                self._draft.freeze(layout)
        return output

    def _output(self, call: Call, inputs: Sequence[Layout | None]) -> Layout | None:
        if call.kind == "InputLayer":
            return self._input(call)
        config = call.config
        if config.get("data_format", "channels_last") == "channels_first":
            return None
        known = [one for one in inputs if one is not None]
        if call.kind in _SUMS | _PICKS | {"Concatenate"}:
            return self._combined(call, known) if len(known) == len(inputs) else None
        if call.kind in WITH_KERNEL and config.get("groups", 1) == 1:
            return self._with_kernel(call, known[0] if known else None)
        rule = self._rule(call)
        return rule(call, known[0]) if rule and len(known) == len(inputs) == 1 else None

    def _rule(self, call: Call) -> Rule | None:
        """What follows a layer of one input that knows what its channels are."""
        if call.kind in DEPTHWISE and call.config.get("depth_multiplier", 1) == 1:
            return self._depthwise
        if call.kind == "BatchNormalization":
            return self._normalized
        if call.kind == "Flatten":
            return lambda _, layout: replace(layout, flattened=True)
        if call.kind in _LINEAR:
            return lambda _, layout: layout
        if call.kind in _LARGEST:
            return lambda _, layout: self._draft.restrict(layout, scale=True)
        return self._activation

    def _input(self, call: Call) -> Layout | None:
        shape = call.config.get("batch_shape", call.config.get("batch_input_shape"))
        count = shape[-1] if isinstance(shape, (list, tuple)) and shape else None
        if not isinstance(count, int) or count < 1:
            return None
        layout = self._draft.new(count)
        self._draft.freeze(layout)
        return layout

    def _with_kernel(self, call: Call, layout: Layout | None) -> Layout | None:
        shape = self._shape(call, "kernel")
        if len(shape) < 2:
            return None
        if self._same_as_before(call, layout) and layout is not None:
            repeats, rest = divmod(shape[-2], layout.count)
            if rest or not (layout.flattened or repeats == 1):
                self._draft.freeze(layout)
            else:
                self._draft.note(layout, call.layer, "kernel", -2, "in", repeats)
        if call.layer not in self._given:
            output = self._draft.new(shape[-1])
            self._make(call, output, "kernel", "bias")
            self._given[call.layer] = output
        return self._after(call.config.get("activation"), self._given[call.layer])

    def _depthwise(self, call: Call, layout: Layout) -> Layout | None:
        # The first in Keras 3, the second before.
        name = "kernel" if self._shape(call, "kernel") else "depthwise_kernel"
        if self._shape(call, name)[-2:] != (layout.count, 1):
            return None
        if not self._same_as_before(call, layout):
            return None
        if call.layer not in self._given:
            output = self._draft.beside(layout)
            self._draft.note(layout, call.layer, name, -2, "in")
            self._draft.note(output, call.layer, name, -2, "out")
            self._make(call, output, "bias")
            self._given[call.layer] = output
        return self._after(call.config.get("activation"), self._given[call.layer])

    def _normalized(self, call: Call, layout: Layout) -> Layout | None:
        if layout.flattened or call.config.get("axis", -1) not in _CHANNELS_LAST:
            return None
        if not self._same_as_before(call, layout):
            return None
        if call.layer not in self._given:
            output = self._draft.beside(layout)
            self._note_all(call, layout, "mean", "moving_mean")
            self._note_all(call, layout, "variance", "moving_variance")
            self._note_all(call, layout, "sign", "gamma")
            self._make(call, output, "gamma", "beta")
            if not call.config.get("scale", True):
                # Without a factor, what comes out has the scale that it has.
                self._draft.restrict(layout)
                self._draft.restrict(output)
            self._given[call.layer] = output
        return self._given[call.layer]

    def _combined(self, call: Call, layouts: list[Layout]) -> Layout | None:
        if not layouts:
            return None
        if call.kind == "Concatenate":
            last = call.config.get("axis", -1) in (-1, 3)
            flattened = any(one.flattened for one in layouts)
            if flattened or not last:
                return None
            return self._draft.beside_each_other(layouts)
        if not all(layouts[0].like(one) for one in layouts):
            return None
        for one in layouts[1:]:
            self._draft.join(layouts[0], one)
        if call.kind in _PICKS:
            self._draft.restrict(layouts[0], scale=True)
        return layouts[0]

    def _activation(self, call: Call, layout: Layout) -> Layout | None:
        if call.kind == "Activation":
            return self._after(call.config.get("activation"), layout)
        bounded = call.config.get("max_value") or call.config.get("threshold")
        name = "relu6" if call.kind == "ReLU" and bounded else call.kind
        known = name in _HOMOGENEOUS | _ODD | _ELEMENTWISE
        return self._after(name, layout) if known else None

    def _after(self, activation: Any, layout: Layout | None) -> Layout | None:
        """What an activation, by its name in a config, lets pass."""
        if layout is None or activation in (None, "linear"):
            return layout
        if not isinstance(activation, str):
            self._draft.freeze(layout)
            return None
        if activation in _HOMOGENEOUS:
            return self._draft.restrict(layout, scale=True)
        if activation in _ODD:
            return self._draft.restrict(layout, sign=True)
        if activation in _ELEMENTWISE:
            return self._draft.restrict(layout)
        self._draft.freeze(layout)
        return layout

    def _same_as_before(self, call: Call, layout: Layout | None) -> bool:
        """Whether a layer that is called again is called on channels of one order."""
        if call.layer not in self._taken:
            self._taken[call.layer] = layout
            return True
        before = self._taken[call.layer]
        if before is None or layout is None or not before.like(layout):
            self._draft.freeze(before)
            self._draft.freeze(layout)
            return False
        self._draft.join(before, layout)
        return True

    def _make(self, call: Call, layout: Layout, *variables: str) -> None:
        self._note_all(call, layout, "out", *variables)

    def _note_all(self, call: Call, layout: Layout, role: Any, *variables: str) -> None:
        for variable in variables:
            if self._shape(call, variable):
                self._draft.note(layout, call.layer, variable, -1, role)

    def _shape(self, call: Call, variable: str) -> tuple[int, ...]:
        return self._shapes.get(call.layer, {}).get(variable, ())
