"""Round trips through files."""

import ml_dtypes
import numpy as np
import pytest

from keras_wm.research.attacks.export import ATTACKS
from tests.research.attacks.networks import BUILDERS, outputs_of, shared, with_weights

FILES, HALVES = ATTACKS[:3], ATTACKS[3:]


@pytest.fixture(scope="module", params=["plain", "wide residual", "attending"])
def model(request):
    return with_weights(BUILDERS[request.param]())


def attacked(attack, model):
    """Attacks a model itself: copying it takes longer."""
    return attack.change(model, None, 1, 0)


@pytest.mark.parametrize("attack", FILES, ids=lambda attack: attack.name)
def test_files_keep_every_weight_bit_for_bit(attack, model):
    loaded = attacked(attack, model)
    for weights, original in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weights, original)
    np.testing.assert_allclose(
        outputs_of(loaded), outputs_of(model), rtol=1e-5, atol=1e-6
    )


@pytest.mark.backends
@pytest.mark.parametrize("attack", HALVES, ids=lambda attack: attack.name)
def test_half_precision_rounds_every_weight(attack, model):
    half = np.float16 if attack.name == "export-float16" else ml_dtypes.bfloat16
    before = model.get_weights()
    rounded = attacked(attack, model)
    for weights, original in zip(rounded.weights, before, strict=True):
        expected = original.astype(half).astype(np.float32)
        np.testing.assert_array_equal(weights, expected)
        assert weights.dtype == "float32"
    assert rounded.compute_dtype == "float32"
    model.set_weights(before)


def test_a_file_that_keras_cannot_load_again_is_reported():
    # Keras saves operations on tensors in an .h5 file, but does not recognise them.
    _, h5, weights = FILES
    model = with_weights(shared())
    with pytest.raises(ValueError, match=r"cannot be loaded again .*\.h5"):
        h5(model)
    for loaded, original in zip(weights(model).weights, model.weights, strict=True):
        np.testing.assert_array_equal(loaded, original)
