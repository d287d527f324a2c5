"""Marks on layers that hold their kernels inside: recurrent, wrapped, attention."""

import keras
import numpy as np
import pytest

from keras_wm import BitErrorRate, attach, detach
from tests.conftest import fixed_key
from tests.models import (
    SEQUENCE_LAYERS,
    attention,
    expected_margin_loss,
    lstm,
    mark,
    penalty,
    sequence_model,
)

pytestmark = pytest.mark.backends


def losses_of_two_steps(model):
    """Returns the embedding loss per bit after each of two steps of training."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(32, 3, 20)), rng.normal(size=(32, 2))
    model.run_eagerly = True
    arguments = {"batch_size": 32, "epochs": 2, "verbose": 0}
    history = model.fit(x, y, callbacks=[BitErrorRate()], **arguments).history
    return history["embedding_loss"]


@pytest.mark.parametrize(
    ("name", "layer"), [("LSTM", "it"), ("TimeDistributed", "it"), ("MHA", "query")]
)
def test_attach_finds_the_kernel_inside_a_layer(name, layer):
    model, key = sequence_model(SEQUENCE_LAYERS[name]), fixed_key(8)
    attach(model, layer, key, strength=0.1)
    assert penalty(model) > 0
    first, second = losses_of_two_steps(model)
    assert second < first
    detach(model)
    assert penalty(model) == 0


def test_attach_does_not_choose_among_several_kernels_inside_a_layer():
    model = sequence_model(attention)
    with pytest.raises(ValueError, match=r"4 kernels inside.*'query', 'key', 'value'"):
        attach(model, "it", fixed_key(8))


# The constructor of an attention layer gives its kernels one regularizer.
@pytest.mark.filterwarnings("ignore:.*in the same slot 0")
@pytest.mark.parametrize("name", SEQUENCE_LAYERS)
def test_a_mark_of_the_constructor_is_trained_and_removed_by_detach(name):
    regularizer = mark(fixed_key(8), strength=0.1)
    model = sequence_model(SEQUENCE_LAYERS[name], regularizer)
    assert penalty(model) > 0
    first, second = losses_of_two_steps(model)
    assert second < first
    assert detach(model)
    assert penalty(model) == 0
    assert "keras_wm" not in model.to_json()


def test_both_kernels_of_a_recurrent_layer_can_be_marked():
    model = sequence_model(lstm)
    key = fixed_key(8)
    attach(model, "it", key, strength=1.0)
    first_penalty = penalty(model)
    attach(model, "it", key, strength=1.0, variable="recurrent_kernel")
    cell = model.get_layer("it").cell
    recurrent = keras.ops.convert_to_numpy(cell.recurrent_kernel)
    unseen_margin = 0.17 * np.sqrt(12 * 48 / 8)
    assert penalty(model) - first_penalty == pytest.approx(
        expected_margin_loss(recurrent, key, unseen_margin), rel=1e-4
    )
