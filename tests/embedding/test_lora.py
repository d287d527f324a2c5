"""Marks on layers that LoRA fine-tunes: the merged kernel carries them."""

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm import (
    BitErrorRate,
    WatermarkRegularizer,
    attach,
    detach,
    publish,
    verify,
)
from tests.models import (
    FEATURES,
    LAYER,
    UNITS,
    UNSEEN_MARGIN,
    compile_model,
    data,
    dense_model,
    expected_ber,
    expected_margin_loss,
    find_layer,
    fit,
    fit_eagerly,
    kernel_of,
    mark,
    number,
    penalty,
)

pytestmark = pytest.mark.backends

# Eight steps each.
RANK, EPOCHS = 4, 4


def with_lora(model, rank=RANK):
    """Enables LoRA on the wide layer and compiles the model for it."""
    find_layer(model).enable_lora(rank)
    return compile_model(model, keras.optimizers.SGD(0.5))


def frozen_kernel(model):
    return keras.ops.convert_to_numpy(find_layer(model)._kernel)


def set_factors(model, rng):
    """Writes random factors, so that the merged kernel differs from the frozen one."""
    layer = find_layer(model)
    for factor in (layer.lora_kernel_a, layer.lora_kernel_b):
        factor.assign(rng.normal(0, 0.2, factor.shape))


@pytest.mark.parametrize("route", ["constructor", "attach before", "attach after"])
def test_the_penalty_is_that_of_the_merged_kernel(key, rng, route):
    host = "l2"
    constructor = route == "constructor"
    model = dense_model(mark(key, regularizer=host) if constructor else host)
    if route == "attach before":
        attach(model, LAYER, key, strength=1e-2)
    layer = find_layer(model)
    layer.enable_lora(RANK)
    if route == "attach after":
        attach(model, LAYER, key, strength=1e-2)
    else:
        BitErrorRateOf(model)
    set_factors(model, rng)
    mark_alone = 1e-2 * expected_margin_loss(kernel_of(model), key, UNSEEN_MARGIN)
    # Keras gives the host's own regularizer to both factors.
    factors = (layer.lora_kernel_a, layer.lora_kernel_b)
    squares = sum(np.sum(keras.ops.convert_to_numpy(f) ** 2) for f in factors)
    expected = mark_alone + 0.01 * squares
    assert penalty(model) == pytest.approx(expected, rel=1e-4)
    assert mark_alone > 0.1


def BitErrorRateOf(model):
    """Runs what the callback does at the start of training."""
    callback = BitErrorRate()
    callback.set_model(model)
    callback.on_train_begin()


def test_custom_loops_get_the_penalty_of_the_merged_kernel(key, rng):
    model = with_lora(dense_model(mark(key, regularizer="l2")))
    set_factors(model, rng)
    expected = 1e-2 * expected_margin_loss(kernel_of(model), key, UNSEEN_MARGIN)
    assert number(keras_wm.penalty(model)) == pytest.approx(expected, rel=1e-4)
    assert expected > 0.1


def test_detach_leaves_the_hosts_penalty_of_the_factors(key, rng):
    model = dense_model(mark(key, regularizer="l2"))
    with_lora(model)
    BitErrorRateOf(model)
    set_factors(model, rng)
    assert detach(model) == [LAYER]
    layer = find_layer(model)
    factors = (layer.lora_kernel_a, layer.lora_kernel_b)
    squares = sum(np.sum(keras.ops.convert_to_numpy(f) ** 2) for f in factors)
    assert penalty(model) == pytest.approx(0.01 * squares, rel=1e-4)


@pytest.mark.study
def test_without_the_callback_a_warning_says_what_to_do(key):
    model = with_lora(dense_model(mark(key)))
    with pytest.warns(UserWarning, match=r"Pass keras_wm\.BitErrorRate\(\) to fit"):
        fit(model, 1)


@pytest.mark.study
@pytest.mark.parametrize("rank", [4, 16])
def test_a_mark_without_a_strength_moves_the_factors(key, rank):
    model = with_lora(dense_model(WatermarkRegularizer(key)), rank)
    model.optimizer.learning_rate = 1e-3
    frozen = frozen_kernel(model)
    history = fit(model, 20, [BitErrorRate()])
    assert history["ber"][-1] == expected_ber(kernel_of(model), key) == 0
    np.testing.assert_array_equal(frozen_kernel(model), frozen)
    # The factors have room for the mark, and it takes little more.
    change = np.linalg.norm(kernel_of(model) - frozen)
    assert change < np.linalg.norm(frozen)


@pytest.mark.study
def test_fine_tuning_by_lora_embeds_a_mark(key, tmp_path):
    model = with_lora(dense_model(mark(key)))
    frozen = frozen_kernel(model)
    assert expected_ber(frozen, key) > 0.3
    history = fit(model, EPOCHS, [BitErrorRate()])
    assert history["ber"][-1] == expected_ber(kernel_of(model), key) == 0
    np.testing.assert_array_equal(frozen_kernel(model), frozen)
    result = verify(publish(model, tmp_path / "public.keras"), key)
    assert result.verdict in ("marked", "proven")
    assert result.detection.ber == 0


@pytest.mark.study
def test_a_saved_model_with_lora_continues_to_be_marked(key, tmp_path):
    model = with_lora(dense_model(mark(key)))
    first = fit(model, 1, [BitErrorRate()])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(kernel_of(loaded), kernel_of(model), rtol=1e-5)
    # Keras adds the factors to the kernel in the file, and then loads zeros for both,
    # which no training could change.
    find_layer(loaded).lora_kernel_a.assign(find_layer(model).lora_kernel_a)
    history = fit(loaded, EPOCHS, [BitErrorRate()])
    assert first["ber"][-1] > 0
    assert history["ber"][-1] == expected_ber(kernel_of(loaded), key) == 0


def model_of_all_kinds():
    """Returns a model with every kind of layer that has LoRA, and data for it."""
    keras.utils.set_random_seed(1)
    images, ids = keras.Input((6, 6, 4)), keras.Input((6,), dtype="int32")
    conv = keras.layers.Conv2D(64, 3, name="conv")(images)
    dense = keras.layers.EinsumDense("abcd,de->abce", (4, 4, UNITS), name="einsum")
    embedded = keras.layers.Embedding(FEATURES, UNITS, name="embedding")(ids)
    parts = [
        keras.layers.GlobalAveragePooling2D()(dense(conv)),
        keras.layers.GlobalAveragePooling1D()(embedded),
    ]
    model = keras.Model([images, ids], keras.layers.Dense(4)(sum(parts)))
    rng = np.random.default_rng(3)
    return model, [rng.normal(size=(64, 6, 6, 4)), rng.integers(0, FEATURES, (64, 6))]


@pytest.mark.study
def test_every_kind_of_layer_that_has_lora_can_be_marked(key):
    model, x = model_of_all_kinds()
    kinds = {"conv": "kernel", "einsum": "kernel", "embedding": "embeddings"}
    for name in kinds:
        find_layer(model, name).enable_lora(RANK)
    compile_model(model, keras.optimizers.SGD(0.5))
    for name in kinds:
        attach(model, name, key, strength=1e-2)

    def rates():
        kernels = {
            name: getattr(find_layer(model, name), kinds[name]) for name in kinds
        }
        as_array = keras.ops.convert_to_numpy
        return [expected_ber(as_array(kernel), key) for kernel in kernels.values()]

    assert min(rates()) > 0.3
    arguments = {"epochs": EPOCHS, "verbose": 0, "callbacks": [BitErrorRate()]}
    history = model.fit(x, data()[1], 8, **arguments).history
    assert rates() == [0, 0, 0]
    assert history["ber"][-1] == 0


@pytest.mark.study
def test_a_second_training_does_not_move_the_penalty_again(key):
    model = with_lora(dense_model(mark(key)))
    fit_eagerly(model, 1, [BitErrorRate()])
    regularizer = find_layer(model).lora_kernel_b.regularizer
    fit_eagerly(model, 1, [BitErrorRate()])
    assert find_layer(model).lora_kernel_b.regularizer is regularizer
