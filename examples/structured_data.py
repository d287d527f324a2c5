"""Table of numbers and categories, in the style of Keras's FeatureSpace example.

The layers that encode the features have no kernels. The line goes into the first dense
layer behind them. `FeatureSpace` trains one model on encoded features and publishes
another one, on raw features, which shares the dense layers and so the mark.

TensorFlow only, because strings are among the features.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from _data import patients
from _report import KEY, accuracy, report
from keras import layers

import keras_wm


def train(mark):
    """Returns the network for raw features and its test accuracy."""
    keras.utils.set_random_seed(1)
    features = {
        "age": keras.utils.FeatureSpace.float_discretized(num_bins=30),
        "pressure": "float_normalized",
        "cholesterol": "float_normalized",
        "pain": "integer_categorical",
        "thal": "string_categorical",
    }
    space = keras.utils.FeatureSpace(features, output_mode="concat")
    table = tf.data.Dataset.from_tensor_slices(patients(1600)).batch(32)
    space.adapt(table.map(lambda features, label: features))
    encoded = space.get_encoded_features()
    x = layers.Dense(512, activation="relu", kernel_regularizer=mark)(encoded)
    outputs = layers.Dense(1, activation="sigmoid")(layers.Dropout(0.5)(x))
    model = keras.Model(encoded, outputs)
    model.compile("adam", "binary_crossentropy")
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    batches = table.map(lambda features, label: (space(features), label)).cache()
    model.fit(batches, epochs=3, verbose=2, callbacks=callbacks)
    network = keras.Model(space.get_inputs(), outputs)
    features, labels = patients(1000, seed=1)
    return network, accuracy(model, space(features), labels)


network, result = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "structured_data.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
