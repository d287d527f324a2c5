"""Hyperparameter search, in the style of KerasTuner's guide.

The line goes into the function that builds the model, so that every trial carries the
mark. The callback is an argument of `search`, and KerasTuner copies it for each trial.
The best hyperparameters then train the network that is published.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
import keras_tuner
from _data import pictures
from _report import KEY, report
from keras import layers

import keras_wm


def build(hp, mark):
    """Returns a compiled network with the hyperparameters of a trial."""
    model = keras.Sequential([keras.Input((16, 16, 1)), layers.Flatten()])
    model.add(
        layers.Dense(
            hp.Int("units", min_value=64, max_value=128, step=32),
            activation=hp.Choice("activation", ["relu", "tanh"]),
            kernel_regularizer=keras_wm.WatermarkRegularizer(KEY) if mark else None,
        )
    )
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(0.25))
    model.add(layers.Dense(10, activation="softmax"))
    rate = hp.Float("lr", min_value=1e-3, max_value=1e-2, sampling="log")
    optimizer = keras.optimizers.Adam(learning_rate=rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    (x, y), validation = pictures(1600), pictures(400, seed=1)
    tuner = keras_tuner.RandomSearch(
        lambda hp: build(hp, mark),
        objective="val_accuracy",
        max_trials=2,
        seed=1,
        overwrite=True,
        directory="search",
        project_name="marked" if mark else "unmarked",
    )
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    options = {"epochs": 5, "verbose": 2, "callbacks": callbacks}
    tuner.search(x, y, validation_data=validation, **options)
    model = tuner.hypermodel.build(tuner.get_best_hyperparameters()[0])
    model.fit(x, y, **options)
    return model, model.evaluate(*pictures(1000, seed=2), verbose=0)[1]


network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "hyperparameter search.keras")
verification = keras_wm.verify(published, KEY)
report("hyperparameter search", verification, twin, accuracy=(accuracy, twin_accuracy))
