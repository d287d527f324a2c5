"""The wide residual network and its optimizer."""

import numpy as np
import pytest

from keras_wm.research.hosts.wide_resnet import paper_optimizer, wide_resnet


def test_wrn_10_4_is_the_papers_network():
    model = wide_resnet((32, 32, 3), 10)
    shapes = {
        layer.name: tuple(layer.kernel.shape)
        for layer in model.layers
        if layer.name.endswith(("conv1", "conv2"))
    }
    assert shapes == {
        "conv1": (3, 3, 3, 16),
        "conv2_block1_conv1": (3, 3, 16, 64),
        "conv2_block1_conv2": (3, 3, 64, 64),
        "conv3_block1_conv1": (3, 3, 64, 128),
        "conv3_block1_conv2": (3, 3, 128, 128),
        "conv4_block1_conv1": (3, 3, 128, 256),
        "conv4_block1_conv2": (3, 3, 256, 256),
    }
    assert model.output_shape == (None, 10)


@pytest.mark.parametrize(
    ("n", "k", "millions"), [(2, 4, 2.7), (4, 10, 36.5), (6, 1, 0.6)]
)
def test_parameter_counts_are_those_of_the_wide_resnet_paper(n, k, millions):
    """Zagoruyko & Komodakis (2016), tables 2 and 4: WRN-16-4, WRN-28-10, WRN-40-1."""
    model = wide_resnet((32, 32, 3), 10, n, k)
    assert model.count_params() / 1e6 == pytest.approx(millions, abs=0.06)


def test_resolution_halves_in_the_last_two_groups():
    model = wide_resnet((32, 32, 3), 10)
    sizes = [model.get_layer(f"conv{g}_block1_add").output.shape[1] for g in (2, 3, 4)]
    assert sizes == [32, 16, 8]


def test_weight_decay_is_an_l2_penalty_of_half_its_value():
    model = wide_resnet((8, 8, 1), 10, weight_decay=5e-4)
    kernels = [w for w in model.weights if w.name == "kernel"]
    expected = sum(5e-4 / 2 * np.sum(np.square(np.asarray(w))) for w in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-4)


def test_a_regularizer_for_an_unknown_layer_lists_the_names():
    with pytest.raises(ValueError, match=r"conv4_block1_conv2'.*'conv9'"):
        wide_resnet((8, 8, 1), 10, regularizers={"conv9": "l2"})


@pytest.mark.parametrize("arguments", [{"n": 0}, {"k": 0}, {"input_shape": (2, 2, 1)}])
def test_an_impossible_network_is_rejected(arguments):
    with pytest.raises(ValueError, match="n >= 1, k >= 1"):
        wide_resnet(**{"input_shape": (8, 8, 1), "classes": 10, **arguments})


def test_the_papers_rate_falls_at_30_60_and_80_percent():
    schedule = paper_optimizer(1000)._learning_rate
    rates = [float(schedule(step)) for step in (1, 299, 301, 601, 801)]
    assert rates == pytest.approx([0.1, 0.1, 0.02, 0.004, 0.0008])
    slower = paper_optimizer(1000, rate=0.01)._learning_rate
    assert float(slower(1)) == pytest.approx(0.01)
