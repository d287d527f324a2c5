"""Round trips through files."""

import ml_dtypes
import numpy as np
import pytest

from keras_wm.research.attacks.export import FILES, HALVES
from tests.research.attacks.networks import BUILDERS, answers, shared, with_weights


@pytest.fixture(scope="module", params=["plain", "wide residual", "attending"])
def model(request):
    return with_weights(BUILDERS[request.param]())


@pytest.mark.parametrize("attack", FILES, ids=lambda one: one.name)
def test_files_keep_every_weight_bit_for_bit(attack, model):
    attacked = attack(model)
    for one, was in zip(attacked.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one, was)
    np.testing.assert_allclose(answers(attacked), answers(model), rtol=1e-5, atol=1e-6)


@pytest.mark.backends
@pytest.mark.parametrize("attack", HALVES, ids=lambda one: one.name)
def test_halves_round_every_weight(attack, model):
    half = np.float16 if attack.name == "export-float16" else ml_dtypes.bfloat16
    attacked = attack(model)
    for one, was in zip(attacked.weights, model.weights, strict=True):
        rounded = np.asarray(was).astype(half).astype(np.float32)
        np.testing.assert_array_equal(one, rounded)
        assert one.dtype == "float32"
    assert attacked.compute_dtype == "float32"


def test_what_keras_cannot_read_back_is_told():
    # Keras writes operations on tensors into an .h5 file, and does not know them then.
    _, h5, weights = FILES
    model = with_weights(shared())
    with pytest.raises(ValueError, match=r"cannot be read again .*\.h5"):
        h5(model)
    for one, was in zip(weights(model).weights, model.weights, strict=True):
        np.testing.assert_array_equal(one, was)
