"""The wide residual network that is marked in both papers."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

# The papers' training: SGD with Nesterov momentum. The learning rate is multiplied by
# RATE_CUT after these shares of all steps.
WEIGHT_DECAY = 5e-4
MOMENTUM = 0.9
INITIAL_RATE = 0.1
RATE_CUT = 0.2
CUT_AT = (0.3, 0.6, 0.8)


def wide_resnet(
    input_shape: tuple[int, int, int],
    classes: int,
    n: int = 1,
    k: int = 4,
    weight_decay: float = WEIGHT_DECAY,
    regularizers: dict[str, Any] | None = None,
) -> keras.Model:
    """Builds a wide residual network WRN-d-k of depth d = 6n + 4.

    The architecture is that of Zagoruyko & Komodakis (2016), and the names of the
    groups are those of Uchida et al. (2017, table 1): `conv1`, then the groups
    `conv2`, `conv3` and `conv4` of n blocks each, with 16 k, 32 k and 64 k filters. The
    last two groups halve the resolution. The convolutions of a block are called
    `<group>_block<b>_conv1` and `<group>_block<b>_conv2`; the papers mark the second
    one, such as `"conv2_block1_conv2"`.

    Args:
        input_shape: Height, width and channels of the pictures.
        classes: Number of classes; the outputs are their logits.
        n: Number of blocks in a group. Defaults to 1.
        k: Widening factor. Defaults to 4.
        weight_decay: Weight decay of all kernels, as the gradient `weight_decay * w`.
            Defaults to 5e-4.
        regularizers: Regularizers by the name of a convolution, such as a
            `WatermarkRegularizer`. Each replaces the weight decay of its layer.

    Returns:
        A `keras.Model`, not compiled.

    Raises:
        ValueError: If n or k is not positive, the pictures are smaller than 4 x 4,
            or the model has no convolution with the name of a regularizer.

    Example:

    ```python
    decay = wide_resnet_decay(5e-4)
    mark = keras_wm.WatermarkRegularizer(key, regularizer=decay)
    model = wide_resnet((32, 32, 3), 10, regularizers={"conv2_block1_conv2": mark})
    ```
    """
    if n < 1 or k < 1 or min(input_shape[:2]) < 4:
        raise ValueError(
            "Expected n >= 1, k >= 1 and pictures of at least 4 x 4 pixels. "
            f"Received: n={n}, k={k}, input_shape={input_shape}"
        )
    build = _Builder(weight_decay, dict(regularizers or {}))
    inputs = keras.Input(input_shape)
    x = build.convolution(inputs, "conv1", 16)
    for group, width in enumerate((16 * k, 32 * k, 64 * k), start=2):
        for block in range(1, n + 1):
            strides = 2 if group > 2 and block == 1 else 1
            x = build.block(x, f"conv{group}_block{block}", width, strides)
    x = layers.ReLU(name="final_relu")(build.normalization(x, "final"))
    x = layers.GlobalAveragePooling2D(name="average_pool")(x)
    outputs = layers.Dense(
        classes, kernel_regularizer=wide_resnet_decay(weight_decay), name="classifier"
    )(x)
    if build.regularizers:
        raise ValueError(
            f"Expected regularizers for some of {', '.join(map(repr, build.names))}. "
            f"Received: {', '.join(map(repr, build.regularizers))}"
        )
    return keras.Model(inputs, outputs, name=f"wide_resnet_{6 * n + 4}_{k}")


def wide_resnet_decay(weight_decay: float) -> keras.regularizers.Regularizer | None:
    """Returns the L2 penalty with the gradient `weight_decay * w`; `None` for 0."""
    return keras.regularizers.L2(weight_decay / 2) if weight_decay else None


def paper_optimizer(
    steps: int, rate: float = INITIAL_RATE
) -> keras.optimizers.Optimizer:
    """Returns the papers' optimizer, SGD with Nesterov momentum.

    The learning rate is divided by 5 after 30, 60 and 80 % of all steps.

    Args:
        steps: Number of steps of the training.
        rate: Initial learning rate. Defaults to 0.1.
    """
    boundaries = [int(share * steps) for share in CUT_AT]
    rates = [rate * RATE_CUT**cut for cut in range(len(CUT_AT) + 1)]
    return keras.optimizers.SGD(
        keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates),
        momentum=MOMENTUM,
        nesterov=True,
    )


class _Builder:
    """Builds the parts of the network, with their regularizers."""

    def __init__(self, weight_decay: float, regularizers: dict[str, Any]) -> None:
        self.weight_decay = weight_decay
        self.regularizers = regularizers
        self.names: list[str] = []

    def block(self, x: Any, name: str, width: int, strides: int) -> Any:
        """Adds a pre-activation residual block of two 3 x 3 convolutions."""
        y = layers.ReLU(name=f"{name}_relu1")(self.normalization(x, f"{name}_1"))
        shortcut = x
        if x.shape[-1] != width or strides != 1:
            shortcut = self.convolution(y, f"{name}_shortcut", width, strides, size=1)
        y = self.convolution(y, f"{name}_conv1", width, strides)
        y = layers.ReLU(name=f"{name}_relu2")(self.normalization(y, f"{name}_2"))
        y = self.convolution(y, f"{name}_conv2", width)
        return layers.Add(name=f"{name}_add")([shortcut, y])

    def convolution(
        self, x: Any, name: str, filters: int, strides: int = 1, size: int = 3
    ) -> Any:
        self.names.append(name)
        decay = wide_resnet_decay(self.weight_decay)
        return layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=self.regularizers.pop(name, decay),
            name=name,
        )(x)

    def normalization(self, x: Any, name: str) -> Any:
        return layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, name=f"{name}_normalization"
        )(x)
