"""Writes the model files of old Keras versions that the tests read.

Run it where the version is installed, with the name of the file to write:

    pip install tensorflow-cpu==2.17.1 keras==3.5.0 tf_keras==2.17.0
    python write_old_files.py keras_3_5.keras
    python write_old_files.py tf_keras_2_17.keras

    pip install tensorflow-cpu==2.13.1
    python write_old_files.py keras_2_13.keras
    python write_old_files.py keras_2_13.h5
"""

import sys

import numpy as np

path = sys.argv[1]
if path.startswith("tf_keras"):
    import tf_keras as keras
else:
    import keras

layers = keras.layers


def filled(layer, value):
    """Sets all weights of a layer to one value, by which the tests know it."""
    layer.set_weights([np.full(w.shape, value, "float32") for w in layer.get_weights()])


encoder = keras.Sequential(
    [keras.Input((1, 1, 3)), layers.Dense(4, use_bias=False, name="narrow")],
    name="encoder",
)
image = keras.Input((4, 4, 1), name="image")
x = layers.Conv2D(2, 3, use_bias=False, name="first_conv")(image)
x = layers.Conv2D(3, 2, use_bias=False, name="second_conv")(x)
x = layers.TimeDistributed(layers.Dense(3, use_bias=False, name="each"), name="rows")(x)
model = keras.Model(image, encoder(x), name="host")
model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
model.fit(np.zeros((1, 4, 4, 1)), np.zeros((1, 1, 1, 4)), verbose=0)
filled(model.get_layer("first_conv"), 1)
filled(model.get_layer("second_conv"), 2)
filled(model.get_layer("rows"), 3)
filled(encoder.get_layer("narrow"), 4)

model.save(path)
