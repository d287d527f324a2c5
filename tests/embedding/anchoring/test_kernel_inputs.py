"""Rows of inputs, checked against the outputs of the layers themselves."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_wm.embedding.anchoring.kernel_inputs import KernelInputs, sampled_rows

pytestmark = pytest.mark.backends

ALL = 10_000
PICTURE = (9, 10, 4)
# A layer without a bias and an activation, and the shape of its inputs.
LAYERS = {
    "dense": (lambda: layers.Dense(3), (7, 5)),
    "valid": (lambda: layers.Conv2D(6, 3), PICTURE),
    "strides": (lambda: layers.Conv2D(6, (3, 2), strides=2, padding="same"), PICTURE),
    "dilation": (
        lambda: layers.Conv2D(6, 3, dilation_rate=2, padding="same"),
        PICTURE,
    ),
    "groups": (lambda: layers.Conv2D(6, 3, groups=2, padding="same"), PICTURE),
    "causal": (lambda: layers.Conv1D(6, 3, padding="causal", dilation_rate=2), (9, 4)),
    "3D": (lambda: layers.Conv3D(6, 2, padding="same"), (4, 5, 6, 2)),
    "heads": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3)), (7, 5)),
    "from heads": (lambda: layers.EinsumDense("abcd,cde->abe", (None, 3)), (7, 2, 5)),
    "ellipsis": (lambda: layers.EinsumDense("...x,xy->...y", 3), (7, 5)),
}


def built(layer, shape):
    """Returns a network of one layer, what its kernel sees, and examples for it."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(0)
    for variable in layer.weights:
        drawn = rng.normal(size=variable.shape) if variable.name == "kernel" else 0
        variable.assign(np.broadcast_to(drawn, variable.shape))
    examples = rng.normal(size=(37, *shape)).astype(np.float32)
    return model, KernelInputs.of(layer, layer._kernel), examples


@pytest.mark.parametrize("case", LAYERS)
def test_rows_times_the_kernel_are_the_outputs(case):
    make, shape = LAYERS[case]
    layer = make()
    model, reader, examples = built(layer, shape)
    rows = [rows for (rows,) in sampled_rows(model, [reader], examples, 37 * ALL)]
    outputs = np.concatenate(rows) @ reader.matrix(np.asarray(layer._kernel))
    if case == "groups":
        # A row of the second group is only multiplied with the second half.
        outputs = outputs.reshape(-1, 2, 2, 3)[:, [0, 1], [0, 1]]
    expected = np.ravel(keras.ops.convert_to_numpy(model(examples)))
    np.testing.assert_allclose(np.sort(np.ravel(outputs)), np.sort(expected), atol=1e-5)


@pytest.mark.parametrize("case", LAYERS)
def test_a_kernel_is_recovered_from_its_matrix(case):
    make, shape = LAYERS[case]
    _, reader, _ = built(make(), shape)
    kernel = np.asarray(reader.kernel)
    matrix = reader.matrix(kernel)
    assert matrix.shape == (reader.size, kernel.size // reader.size)
    np.testing.assert_array_equal(reader.kernel_of(matrix), kernel)


def test_rows_are_chosen_at_the_same_places_of_each_network():
    model, reader, examples = built(layers.Conv2D(6, 3), PICTURE)
    first, again, other = (
        np.concatenate(
            [rows for (rows,) in sampled_rows(model, [reader], examples, 3, seed)]
        )
        for seed in (1, 1, 2)
    )
    # Three rows of each of the 37 examples.
    assert first.shape == (3 * 37, 36)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_layer_that_is_called_twice_shows_the_inputs_of_both_calls():
    shared = layers.Dense(4)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(shared(inputs)))
    reader = KernelInputs.of(shared, shared._kernel)
    examples = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    ((rows,),) = sampled_rows(model, [reader], examples, ALL)
    hidden = keras.ops.convert_to_numpy(shared(examples))
    np.testing.assert_allclose(rows, np.concatenate([examples, hidden]), atol=1e-6)


def test_the_network_is_left_as_it_was():
    layer = layers.Dense(4)
    model, reader, examples = built(layer, (4,))
    before = dict(vars(layer))
    list(sampled_rows(model, [reader], examples, ALL))
    assert vars(layer) == before


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2DTranspose(6, 3),
        layers.DepthwiseConv2D(3),
        layers.SeparableConv2D(6, 3),
    ],
)
def test_other_layers_are_refused(layer):
    layer.build((None, *PICTURE))
    kernel = layer.weights[0]
    with pytest.raises(
        ValueError, match=rf"Expected .* Conv2D.*{type(layer).__name__}"
    ):
        KernelInputs.of(layer, kernel)


def test_a_layer_that_sums_over_the_last_axis_of_its_kernel_is_refused():
    layer = layers.EinsumDense("ab,cb->ac", 3)
    layer.build((None, 5))
    with pytest.raises(ValueError, match="filters on the last axis"):
        KernelInputs.of(layer, layer._kernel)


def test_a_layer_that_the_model_does_not_call_is_named():
    model, _, examples = built(layers.Dense(4), (4,))
    other = layers.Dense(4, name="other")
    other.build((None, 4))
    readers = [KernelInputs.of(other, other._kernel)]
    with pytest.raises(ValueError, match="calls its layer 'other'"):
        list(sampled_rows(model, readers, examples, ALL))
