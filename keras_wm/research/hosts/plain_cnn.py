"""A plain chain of convolutions, with or without batch normalization."""

from __future__ import annotations

import keras
from keras import layers

WIDTHS = (32, 64, 64, 128)
_POOLED_AFTER = 2
_HIDDEN = 64


def plain_cnn(
    input_shape: tuple[int, int, int], classes: int, normalized: bool = False
) -> keras.Model:
    """Builds a small network in the style of VGG (Simonyan & Zisserman 2015).

    Four convolutions, `conv1` to `conv4`, have 32, 64, 64 and 128 filters of 3 x 3,
    each followed by a ReLU. Max pooling after the second one halves the resolution.
    The dense layers `hidden`, with 64 units, and `classifier` follow.

    Args:
        input_shape: Height, width and channels of the pictures.
        classes: Number of classes; the outputs are their logits.
        normalized: Whether to use a batch normalization after every convolution
            instead of a bias.

    Returns:
        A `keras.Model`, not compiled.
    """
    chain: list[keras.layers.Layer] = [keras.Input(input_shape)]
    for number, width in enumerate(WIDTHS, 1):
        chain.append(
            layers.Conv2D(
                width, 3, padding="same", use_bias=not normalized, name=f"conv{number}"
            )
        )
        if normalized:
            chain.append(layers.BatchNormalization(name=f"conv{number}_normalized"))
        chain.append(layers.ReLU(name=f"conv{number}_relu"))
        if number == _POOLED_AFTER:
            chain.append(layers.MaxPooling2D(name="pool"))
    return keras.Sequential(
        [
            *chain,
            layers.Flatten(name="flat"),
            layers.Dense(_HIDDEN, activation="relu", name="hidden"),
            layers.Dense(classes, name="classifier"),
        ]
    )
