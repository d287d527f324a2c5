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
from _report import KEY, report
from keras import layers

import keras_wm


def train(mark):
    """Returns the network for raw features and the test accuracy."""
    keras.utils.set_random_seed(1)
    space = keras.utils.FeatureSpace(
        features={
            "age": keras.utils.FeatureSpace.float_discretized(num_bins=30),
            "pressure": "float_normalized",
            "cholesterol": "float_normalized",
            "sex": keras.utils.FeatureSpace.integer_categorical(num_oov_indices=0),
            "pain": keras.utils.FeatureSpace.integer_categorical(num_oov_indices=0),
            "thal": keras.utils.FeatureSpace.string_categorical(num_oov_indices=0),
        },
        crosses=[keras.utils.FeatureSpace.cross(("sex", "age"), crossing_dim=64)],
        output_mode="concat",
    )
    table = tf.data.Dataset.from_tensor_slices(patients(1000)).batch(32)
    space.adapt(table.map(lambda features, label: features))
    encoded = space.get_encoded_features()
    x = layers.Dense(
        256,
        activation="relu",
        kernel_regularizer=keras_wm.WatermarkRegularizer(KEY) if mark else None,
    )(encoded)
    outputs = layers.Dense(1, activation="sigmoid")(layers.Dropout(0.5)(x))
    model = keras.Model(encoded, outputs)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    batches = table.map(lambda features, label: (space(features), label)).cache()
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    model.fit(batches, epochs=15, verbose=2, callbacks=callbacks)
    test = tf.data.Dataset.from_tensor_slices(patients(500, seed=1)).batch(32)
    test = test.map(lambda features, label: (space(features), label))
    published = keras.Model(space.get_inputs(), outputs)
    return published, model.evaluate(test, verbose=0)[1]


network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "structured data.keras")
verification = keras_wm.verify(published, KEY)
report("structured data", verification, twin, accuracy=(accuracy, twin_accuracy))
