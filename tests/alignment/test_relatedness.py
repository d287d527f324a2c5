"""The relatedness of networks, whose relation is known from how they were made."""

from itertools import pairwise

import keras
import numpy as np
import pytest

from keras_wm.alignment.reference import read_reference
from keras_wm.alignment.relatedness import Relatedness, relatedness
from keras_wm.files import open_model
from keras_wm.research.alignment_trials.networks import ArrayModel, chain

WIDTH = 48
CHAIN = chain(WIDTH, {})
LAYERS = ("first", "second", "third", "last")
# Standard deviation of the noise in a fine-tuned copy, in those of a weight.
NOISE = 0.3


def draw(seed):
    """Returns the kernels and biases of a chain, and a generator."""
    rng = np.random.default_rng(seed)
    return dict(CHAIN.draw(rng)), rng


def tuned(weights, rng):
    return {
        name: array + NOISE * array.std() * rng.normal(size=array.shape)
        for name, array in weights.items()
    }


def permuted(weights, rng):
    """Returns weights with permuted and scaled hidden channels."""
    weights = dict(weights)
    for layer, following in pairwise(LAYERS):
        order, scale = rng.permutation(WIDTH), np.exp(rng.normal(size=WIDTH))
        for variable in ("kernel", "bias"):
            array = weights[layer, variable][..., order]
            weights[layer, variable] = array * scale
        kernel = weights[following, "kernel"][order]
        weights[following, "kernel"] = kernel / scale[:, None]
    return weights


def compared(original, disputed, marked=(), model=CHAIN.model):
    with (
        open_model(model(original)) as own,
        open_model(model(disputed)) as suspect,
    ):
        return relatedness(read_reference(own), suspect, marked)


def test_a_permuted_and_scaled_copy_is_as_similar_as_the_copy():
    original, rng = draw(1)
    copy = tuned(original, rng)
    found = compared(original, permuted(copy, rng))
    for name, cosine in found.cosines.items():
        kernel, other = (
            weights[name.split("/")[0], "kernel"] for weights in (original, copy)
        )
        expected = np.vdot(kernel, other) / np.linalg.norm(kernel)
        # Scales are removed, and only a quarter of the weights is compared. Its cosine
        # has a standard deviation of 0.004.
        assert cosine == pytest.approx(expected / np.linalg.norm(other), abs=0.02)
    assert len(found.cosines) == 4
    assert found.figure == pytest.approx(1 / np.sqrt(1 + NOISE**2), abs=0.02)
    assert found.is_related
    assert str(found) == f"{found.figure:.2f}, the median cosine of 4 kernels"


def test_unrelated_networks_have_no_cosines_but_chance():
    # The mean of 32 cosines has a standard deviation of 0.007. That the larger one of
    # two medians is taken adds about 0.01.
    cosines = []
    for seed in range(8):
        found = compared(draw(2 * seed)[0], draw(2 * seed + 1)[0])
        assert abs(found.figure) < 0.1
        assert not found.is_related
        cosines += found.cosines.values()
    assert abs(np.mean(cosines)) < 0.05


def test_the_weights_that_are_compared_do_not_align():
    # If whole kernels did both, unrelated ones would have cosines of 0.3 and more.
    original, rng = draw(3)
    other = permuted(draw(4)[0], rng)
    assert max(compared(original, other).cosines.values()) < 0.15


@pytest.mark.parametrize("layer", LAYERS)
def test_a_new_layer_does_not_hide_that_the_others_are_alike(layer):
    original, rng = draw(5)
    copy = tuned(original, rng)
    copy[layer, "kernel"] = rng.normal(size=(WIDTH, WIDTH))
    for disputed in (copy, permuted(copy, rng)):
        found = compared(original, disputed)
        assert found.is_related
        assert abs(found.cosines[f"{layer}/kernel"]) < 0.15


def test_kernels_as_they_are_need_no_alignment():
    # With every other layer new, nothing shows the order of the channels between them.
    original, rng = draw(6)
    copy = tuned(original, rng)
    copy["second", "kernel"] = rng.normal(size=(WIDTH, WIDTH))
    found = compared(original, copy, marked=["second/kernel"])
    kernel, other = original["third", "kernel"], copy["third", "kernel"]
    expected = np.vdot(kernel, other) / np.linalg.norm(kernel) / np.linalg.norm(other)
    assert found.cosines["third/kernel"] == pytest.approx(expected, abs=0.02)


def test_marked_kernels_are_left_out_as_long_as_others_remain():
    original, rng = draw(7)
    copy = tuned(original, rng)
    marked = [f"{layer}/kernel" for layer in LAYERS]
    assert list(compared(original, copy, marked[:3]).cosines) == marked[3:]
    assert list(compared(original, copy, marked).cosines) == marked


def test_another_architecture_is_not_related():
    original, _ = draw(8)
    with (
        open_model(CHAIN.model(original)) as own,
        open_model(
            keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        ) as other,
    ):
        found = relatedness(read_reference(own), other)
    assert (found.figure, found.is_related) == (0, False)
    assert "match" in found.problem
    assert str(found) == f"unknown: {found.problem}"


def test_weights_that_are_not_finite_are_not_related():
    original, _ = draw(9)
    broken = {**original, ("third", "kernel"): np.full((WIDTH, WIDTH), np.nan)}
    found = compared(original, broken)
    assert not found.is_related
    assert "NaN" in found.problem


def test_depthwise_and_recurrent_layers_do_not_prevent_a_comparison():
    layers = keras.layers
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(64, 3)(images)
    x = layers.DepthwiseConv2D(3)(layers.BatchNormalization()(x))
    x = layers.LSTM(12)(layers.Reshape((16, 32))(layers.Conv2D(32, 1)(x)))
    model = keras.Model(images, layers.Dense(40)(x))
    names = [(v.path.rpartition("/")[0], v.name) for v in model.weights]
    weights = dict(zip(names, map(np.asarray, model.weights), strict=True))
    rng = np.random.default_rng(10)
    other = {
        name: rng.normal(size=array.shape) if array.ndim > 1 else array
        for name, array in weights.items()
    }
    related = compared(
        weights, weights, model=lambda w: ArrayModel(model.get_config(), w)
    )
    apart = compared(weights, other, model=lambda w: ArrayModel(model.get_config(), w))
    assert related.figure == pytest.approx(1)
    # The convolutions, and the dense layer. Its inputs are not aligned.
    assert len(related.cosines) == 4
    assert abs(apart.figure) < 0.15


def test_the_figure_is_the_median():
    assert Relatedness({"a": 0.9, "b": 0.1, "c": 0.7}).figure == 0.7
    assert Relatedness({"a": 0.9}).is_related
    assert str(Relatedness({"a": 0.9})) == "0.90, the median cosine of 1 kernel"
