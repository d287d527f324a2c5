"""Layer classes of Keras: which of them have weights, and layers inside them.

The classes decide which paths of a file Keras reads. A class that is not listed here is
custom, or newer than this list. Nobody can know from a file what such a class holds.
"""

from __future__ import annotations

from typing import Any

# Packages whose classes are meant by the names below.
_PACKAGES = ("keras", "tf_keras", "tensorflow")
# Public names of one class. Paths in a file contain the last one.
_ALIASES = {
    "Model": "Functional",
    "GroupQueryAttention": "GroupedQueryAttention",
    **{
        f"{prefix}{short}{axes}D{suffix}": f"{prefix}{long}{axes}D{suffix}"
        for axes in (1, 2, 3)
        for prefix, short, long, suffix in (
            ("", "Convolution", "Conv", ""),
            ("", "Convolution", "Conv", "Transpose"),
            ("Separable", "Convolution", "Conv", ""),
            ("", "AvgPool", "AveragePooling", ""),
            ("", "MaxPool", "MaxPooling", ""),
            ("Global", "AvgPool", "AveragePooling", ""),
            ("Global", "MaxPool", "MaxPooling", ""),
        )
    },
}

# Attributes that hold a list of layers.
_LISTS = {
    "Functional": ("layers", "_layer_checkpoint_dependencies"),
    "Sequential": ("layers", "_layer_checkpoint_dependencies"),
    "StackedRNNCells": ("cells",),
    "Pipeline": ("layers",),
}
_ATTENTION = tuple(f"{part}_dense" for part in ("query", "key", "value", "output"))
# Attributes that hold a layer. Some versions of Keras put an underscore before those of
# an attention layer.
_PARTS = {
    **dict.fromkeys(("RNN", "LSTM", "GRU", "SimpleRNN", "ConvLSTM1D"), ("cell",)),
    **dict.fromkeys(("ConvLSTM2D", "ConvLSTM3D"), ("cell",)),
    "Bidirectional": ("forward_layer", "backward_layer"),
    "TimeDistributed": ("layer",),
    "SpectralNormalization": ("layer",),
    "MultiHeadAttention": _ATTENTION,
    "GroupedQueryAttention": _ATTENTION,
}
# Number of kernels of classes that can have LoRA. With it, Keras does not check whether
# a file has more variables than the layer. It checks this for all other classes.
_KERNELS = {
    **dict.fromkeys(("Dense", "EinsumDense", "Embedding"), 1),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), 1),
    "ReversibleEmbedding": 2,
}
_WITH_WEIGHTS = """
Conv1DTranspose Conv2DTranspose Conv3DTranspose DepthwiseConv1D DepthwiseConv2D
SeparableConv1D SeparableConv2D LocallyConnected1D LocallyConnected2D
BatchNormalization LayerNormalization GroupNormalization RMSNormalization
Normalization PReLU Attention AdditiveAttention Discretization STFTSpectrogram
LSTMCell GRUCell SimpleRNNCell IntegerLookup StringLookup TextVectorization
LayerScale
"""
_WITHOUT_WEIGHTS = """
Activation ActivityRegularization Add AlphaDropout AugMix AutoContrast Average
CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization
Cropping1D Cropping2D Cropping3D CustomScaleLayer CutMix Dot Dropout ELU Equalization
Flatten GaussianDropout GaussianNoise HashedCrossing Hashing Identity InputLayer Lambda
LeakyReLU Masking MaxNumBoundingBoxes Maximum MelSpectrogram Minimum MixUp Multiply
Permute RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter
RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip
RandomGaussianBlur RandomGrayscale RandomHeight RandomHue RandomInvert
RandomPerspective RandomPosterization RandomRotation RandomSaturation
RandomSharpness RandomShear RandomTranslation RandomWidth RandomZoom ReLU
RepeatVector Rescaling Reshape Resizing Softmax Solarization SpatialDropout1D
SpatialDropout2D SpatialDropout3D StochasticDepth Subtract ThresholdedReLU
UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
ZeroPadding3D
"""
_POOLING = (
    *("AveragePooling", "GlobalAveragePooling", "AdaptiveAveragePooling"),
    *("MaxPooling", "GlobalMaxPooling", "AdaptiveMaxPooling"),
)
_HAVING_WEIGHTS = frozenset([*_WITH_WEIGHTS.split(), *_PARTS, *_KERNELS])
_HAVING_NONE = frozenset(
    [
        *_WITHOUT_WEIGHTS.split(),
        *(f"{pooling}{axes}D" for pooling in _POOLING for axes in (1, 2, 3)),
        *_LISTS,
    ]
)


def class_of(node: Any) -> str:
    """Returns the class name of a node as paths contain it; empty without a name."""
    name = node.get("class_name") if isinstance(node, dict) else None
    if not isinstance(name, str):
        return ""
    return _ALIASES.get(name, name) if _is_from_keras(node) else name


def is_built_in(node: Any) -> bool:
    """Returns whether a node's class is one of Keras that is listed here."""
    return _is_from_keras(node) and class_of(node) in _HAVING_WEIGHTS | _HAVING_NONE


def is_model(node: Any) -> bool:
    """Returns whether a node is a Functional or Sequential model of Keras itself."""
    return is_built_in(node) and class_of(node) in ("Functional", "Sequential")


def has_weights(node: Any) -> bool:
    """Returns whether a layer of a built-in class can have weights of its own."""
    return class_of(node) not in _HAVING_NONE


def count_kernels(node: Any) -> int | None:
    """Returns the number of a layer's kernels, or `None` if Keras checks the number."""
    return _KERNELS.get(class_of(node)) if _is_from_keras(node) else None


def holds_list(node: Any, attribute: str) -> bool:
    """Returns whether an attribute of a built-in class holds a list of layers."""
    return attribute in _LISTS.get(class_of(node), ())


def holds_layer(node: Any, attribute: str) -> bool:
    """Returns whether an attribute of a built-in class holds a layer."""
    parts = _PARTS.get(class_of(node), ())
    return attribute in parts or (
        parts is _ATTENTION and attribute.removeprefix("_") in parts
    )


def _is_from_keras(node: Any) -> bool:
    module = node.get("module") if isinstance(node, dict) else ""
    # Keras 2 wrote no modules.
    return not isinstance(module, str) or module.partition(".")[0] in _PACKAGES
