"""The inputs that a kernel is multiplied with, for examples of a network's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_wm.utils.arrays import Floats, Indices

BATCH = 32
_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


@dataclass(frozen=True)
class KernelInputs:
    """Describes how a layer's kernel is multiplied with the layer's inputs.

    An output of the layer is the scalar product of a row of inputs with the weights of
    a filter along the kernel's seen axes. A convolution's row is a patch of its inputs,
    a dense layer's a vector of features.

    Attributes:
        layer: The Keras layer.
        kernel: The kernel's variable.
        seen: Axes of the kernel that are multiplied with a row, in its order. They do
            not include the last axis, that of the filters.
    """

    layer: Any
    kernel: Any
    seen: tuple[int, ...]

    @classmethod
    def of(cls, layer: Any, kernel: Any) -> Self:
        """Finds how a layer's kernel meets the layer's inputs.

        Args:
            layer: A built Dense, EinsumDense or convolution.
            kernel: The variable of its kernel.

        Raises:
            ValueError: If the layer is of another class, or sums over the last axis of
                its kernel.
        """
        if kernel is getattr(layer, "_kernel", layer):
            if isinstance(layer, (keras.layers.Dense, *_CONVOLUTIONS)):
                return cls(layer, kernel, tuple(range(len(kernel.shape) - 1)))
            if isinstance(layer, keras.layers.EinsumDense):
                _, weights, _ = _einsum_labels(layer)
                seen = tuple(weights.index(label) for label in _summed(layer))
                if seen and seen[-1] != len(weights) - 1:
                    return cls(layer, kernel, seen)
        raise ValueError(
            "Expected the kernel of a Dense, EinsumDense, Conv1D, Conv2D or Conv3D "
            "layer that has its filters on the last axis. Received: the variable "
            f"{kernel.name!r} of {layer.name!r}, a layer of class "
            f"{type(layer).__name__}"
        )

    @property
    def size(self) -> int:
        """Number of inputs in a row."""
        return int(np.prod([self.kernel.shape[axis] for axis in self.seen]))

    def matrix(self, kernel: Any) -> Any:
        """Returns a kernel's values as a matrix with the seen axes as its rows.

        Args:
            kernel: Array of the kernel's shape.
        """
        return np.moveaxis(kernel, self.seen, range(len(self.seen))).reshape(
            self.size, -1
        )

    def kernel_of(self, matrix: Any) -> Any:
        """Returns the kernel of a matrix, as `matrix` gives it."""
        axes = range(len(self.seen))
        shape = tuple(self.kernel.shape)
        rest = [size for axis, size in enumerate(shape) if axis not in self.seen]
        moved = matrix.reshape(*(shape[axis] for axis in self.seen), *rest)
        return np.moveaxis(moved, axes, self.seen)

    def rows(self, inputs: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Returns randomly chosen rows of the inputs in one call of the layer.

        Args:
            inputs: The layer's inputs, the examples on the first axis.
            count: Number of rows for each example, if it has that many.
            rng: Source of randomness.

        Returns:
            Array of shape `(n, size)`.
        """
        if isinstance(self.layer, _CONVOLUTIONS):
            return self._patches(inputs, count, rng)
        if isinstance(self.layer, keras.layers.EinsumDense):
            labels, _, _ = _einsum_labels(self.layer)
            summed = [
                labels.index(label) - len(labels) for label in _summed(self.layer)
            ]
            inputs = np.moveaxis(inputs, summed, range(-len(summed), 0))
        examples = inputs.reshape(len(inputs), -1, self.size)
        chosen = _chosen(rng, examples.shape[1], count)
        return examples[:, chosen].reshape(-1, self.size)

    def _patches(self, inputs: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Returns patches at the same random places of all examples."""
        layer = self.layer
        if layer.data_format == "channels_first":
            inputs = np.moveaxis(inputs, 1, -1)
        lengths = layer.kernel_size
        spans = [
            (length - 1) * dilation + 1
            for length, dilation in zip(lengths, layer.dilation_rate, strict=True)
        ]
        sizes = inputs.shape[1:-1]
        padding = [
            _padding(layer.padding, *sides)
            for sides in zip(sizes, spans, layer.strides, strict=True)
        ]
        padded = np.pad(inputs, [(0, 0), *padding, (0, 0)])
        places = [
            np.arange(0, size - span + 1, stride)
            for size, span, stride in zip(
                padded.shape[1:-1], spans, layer.strides, strict=True
            )
        ]
        corners = np.array(list(product(*places)))
        corners = corners[_chosen(rng, len(corners), count)]
        offsets = np.array(
            list(
                product(
                    *(
                        range(0, span, dilation)
                        for span, dilation in zip(
                            spans, layer.dilation_rate, strict=True
                        )
                    )
                )
            )
        )
        # Shape (rank, corners, offsets): the place of each input of each patch.
        indices = np.moveaxis(corners[:, None] + offsets, -1, 0)
        patches = padded[:, *indices]
        channels = self.kernel.shape[-2]
        groups = patches.reshape(*patches.shape[:-1], -1, channels)
        return np.moveaxis(groups, -2, 2).reshape(-1, self.size)


def sampled_rows(
    model: Any, readers: Sequence[KernelInputs], inputs: Any, each: int, seed: int = 0
) -> Iterator[list[Floats]]:
    """Yields rows that the kernels of a network see, batch by batch.

    Args:
        model: A built Keras model.
        readers: The kernels.
        inputs: Examples of the model's inputs: an array, or a list or dict of arrays.
        each: Number of rows of each kernel for each example, if it has that many.
        seed: Random seed of the choice of rows. With the same seed, they are taken at
            the same places in every network of this architecture.

    Yields:
        The rows of each kernel for a batch of examples, a list of arrays of shape
        `(n, size)`.

    Raises:
        ValueError: If the model does not call one of the layers.
    """
    inputs = keras.tree.map_structure(np.asarray, inputs)
    examples = count_examples(inputs)
    for start in range(0, examples, BATCH):
        batch = keras.tree.map_structure(
            lambda array, start=start: ops.convert_to_tensor(
                array[start : start + BATCH]
            ),
            inputs,
        )
        layers = [reader.layer for reader in readers]
        with _without_gradients(), _recorded(layers) as calls:
            model(batch, training=False)
        yield [
            np.concatenate(
                [
                    reader.rows(seen, each, np.random.default_rng([seed, start]))
                    for seen in _seen(calls, reader.layer)
                ]
            )
            for reader in readers
        ]


def _without_gradients() -> AbstractContextManager[Any]:
    """Returns a context in which PyTorch does not keep what gradients would need."""
    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch

    context: AbstractContextManager[Any] = torch.no_grad()
    return context


def count_examples(inputs: Any) -> int:
    """Returns the number of examples in an array, or in a list or dict of arrays."""
    return len(keras.tree.flatten(inputs)[0])


@contextmanager
def _recorded(layers: Sequence[Any]) -> Iterator[dict[int, list[Floats]]]:
    """Records the inputs of every call of some layers, by the layer's id."""
    calls: dict[int, list[Floats]] = {}

    def recording(layer: Any) -> Callable[..., Any]:
        call = layer.call

        def record(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            values = ops.convert_to_numpy(ops.cast(inputs, "float32"))
            calls.setdefault(id(layer), []).append(values)
            return call(inputs, *args, **kwargs)

        return record

    with replaced_calls(layers, recording):
        yield calls


@contextmanager
def replaced_calls(
    layers: Sequence[Any], replacement: Callable[[Any], Callable[..., Any]]
) -> Iterator[None]:
    """Replaces the method `call` of some layers.

    Args:
        layers: The layers.
        replacement: Returns the function that takes the place of a layer's `call`.
    """
    with ExitStack() as undo:
        for layer in {id(layer): layer for layer in layers}.values():
            # Keras looks `call` up on the object first. Set through its dictionary, it
            # can be removed again, and Keras does not track it.
            vars(layer)["call"] = replacement(layer)
            undo.callback(vars(layer).pop, "call")
        yield


def _seen(calls: dict[int, list[Floats]], layer: Any) -> list[Floats]:
    if id(layer) in calls:
        return calls[id(layer)]
    raise ValueError(
        f"Expected a model that calls its layer {layer.name!r}, to see the layer's "
        "inputs. Received: a model that did not call it"
    )


def _chosen(rng: np.random.Generator, available: int, count: int) -> Indices:
    """Returns the indices of randomly chosen rows of an example."""
    return rng.permutation(available)[:count]


def _padding(kind: str, size: int, span: int, stride: int) -> tuple[int, int]:
    """Returns the zeros that a convolution puts before and after an axis."""
    if kind == "causal":
        return span - 1, 0
    if kind == "valid":
        return 0, 0
    total = max((ceil(size / stride) - 1) * stride + span - size, 0)
    return total // 2, total - total // 2


def _einsum_labels(layer: Any) -> tuple[str, str, str]:
    """Returns the labels of an EinsumDense layer: inputs, kernel and outputs."""
    operands, outputs = layer.equation.replace("...", "").replace(" ", "").split("->")
    inputs, weights = operands.split(",")
    return inputs, weights, outputs


def _summed(layer: Any) -> list[str]:
    """Returns the labels that an EinsumDense layer sums over, in the kernel's order."""
    inputs, weights, outputs = _einsum_labels(layer)
    return [label for label in weights if label in inputs and label not in outputs]
