"""Hyperparameter search, in the style of KerasTuner's guide.

The line goes into the function that builds the model, so that every trial carries the
mark. The callback is an argument of `search`, and KerasTuner copies it for each trial.
The best hyperparameters then train the network that is published.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
import keras_tuner
from _data import pictures
from _report import KEY, accuracy, report
from keras import layers

import keras_wm


def build(hp, key):
    """Returns a compiled network with the hyperparameters of a trial."""
    mark = keras_wm.WatermarkRegularizer(key) if key else None
    units, activation = hp.Int("units", 128, 256, 64), hp.Choice("f", ["relu", "tanh"])
    model = keras.Sequential([keras.Input((12, 12, 1)), layers.Flatten()])
    model.add(layers.Dense(units, activation, kernel_regularizer=mark))
    model.add(layers.Dense(10, activation="softmax"))
    optimizer = keras.optimizers.Adam(hp.Float("lr", 1e-3, 1e-2, sampling="log"))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    # Otherwise TensorFlow traces the first step twice, to create these variables.
    model.optimizer.build(model.trainable_variables)
    return model


def train(key):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    (x, y), validation = pictures(1600), pictures(400, seed=1)
    tuner = keras_tuner.RandomSearch(
        lambda hp: build(hp, key),
        objective="val_accuracy",
        max_trials=2,
        seed=1,
        overwrite=True,
    )
    callbacks = [keras_wm.BitErrorRate()] if key else []
    options = {"epochs": 3, "verbose": 2, "callbacks": callbacks}
    tuner.search(x, y, validation_data=validation, **options)
    model = tuner.hypermodel.build(tuner.get_best_hyperparameters()[0])
    model.fit(x, y, **options)
    return model, accuracy(model, *pictures(1000, seed=2))


network, result = train(KEY)
published = keras_wm.publish(network, "hyperparameter_search.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
