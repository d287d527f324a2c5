"""KerasTuner: every trial trains the mark, and `ber` can be the objective."""

import keras_tuner
import pytest

from keras_wm import BitErrorRate
from tests.models import compile_model, data, dense_model, expected_ber, kernel_of, mark

pytestmark = [
    pytest.mark.backends,
    pytest.mark.study,
    # KerasTuner calls the threading module by its old names.
    pytest.mark.filterwarnings(r"ignore:\w+\(\) is deprecated:DeprecationWarning"),
]


def search(key, folder, strengths, objective, epochs, **arguments):
    """Searches the strength of the mark, and returns the tuner."""

    def build(parameters):
        strength = parameters.Choice("strength", strengths)
        model = dense_model(mark(key, strength=strength), compiled=False)
        return compile_model(model)

    tuner = keras_tuner.GridSearch(
        build, objective=objective, directory=folder, project_name="marks", **arguments
    )
    x, y = data()
    tuner.search(
        *(x, y),
        epochs=epochs,
        batch_size=8,
        shuffle=False,
        callbacks=[BitErrorRate()],
        verbose=0,
    )
    return tuner


# `BitErrorRate` warns of the strength that is too small, as it should.
@pytest.mark.filterwarnings("ignore:The mark on layer 'wide' is")
def test_the_best_strength_by_bit_error_rate_is_found_and_its_mark_complete(
    key, tmp_path
):
    assert expected_ber(kernel_of(dense_model()), key) > 0.3
    objective = keras_tuner.Objective("ber", "min")
    tuner = search(key, tmp_path, [1e-6, 1e-2], objective, 4)
    assert tuner.get_best_hyperparameters()[0]["strength"] == 1e-2
    rates = {
        trial.hyperparameters["strength"]: trial.score
        for trial in tuner.oracle.trials.values()
    }
    assert rates[1e-2] == 0 < 0.2 < rates[1e-6]
    # Rebuilt from its parameters, with the weights of its best epoch.
    (model,) = tuner.get_best_models(1)
    assert expected_ber(kernel_of(model), key) == 0
    assert model.layers[0].kernel.regularizer.key == key
