"""Running Keras without tracing, for tests that train for a few steps."""

import keras


def run_eagerly(patch):
    """Makes every Keras model run eagerly on TensorFlow, with a `MonkeyPatch`.

    Tracing the training of a small network takes 1.4 CPU seconds; one epoch of four
    eager steps takes 0.7. Predictions of a new network are faster, too.
    """
    if keras.backend.backend() == "tensorflow":
        always = property(lambda model: True, lambda model, value: None)
        patch.setattr(keras.Model, "run_eagerly", always)
