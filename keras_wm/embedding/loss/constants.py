"""Arrays that all steps of a training read and none of them changes."""

from __future__ import annotations

from typing import Any

import keras


def outside_of_graphs(array: Any) -> Any:
    """Returns an array that compiled steps of TensorFlow read as an input.

    As an array, it would be a constant in the graph of every step and of every branch,
    with T M numbers in each. Keras has no function for this. JAX compiles arrays into
    the step as constants; only a weight of the model could be an input there, and the
    mark must not add a weight.
    """
    if keras.backend.backend() != "tensorflow":
        return array
    import tensorflow as tf

    with tf.init_scope():
        return tf.convert_to_tensor(array)
