"""Bidirectional LSTM, in the style of Keras's example on film reviews.

The line goes into the LSTM that `Bidirectional` wraps. The wrapper makes a copy of it
for each direction, so both copies carry the mark. Kernels of one shape need different
slots; here the backward layer gets slot 1.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import reviews
from _report import KEY, accuracy, report
from keras import layers

import keras_wm


def train(marks):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    forward = layers.LSTM(64, kernel_regularizer=marks[0])
    backward = layers.LSTM(64, go_backwards=True, kernel_regularizer=marks[1])
    model = keras.Sequential([keras.Input((None,), dtype="int32")])
    model.add(layers.Embedding(1000, 64))
    model.add(layers.Bidirectional(forward, backward_layer=backward))
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile("adam", "binary_crossentropy")
    # Otherwise TensorFlow traces the first step twice, to create these variables.
    model.optimizer.build(model.trainable_variables)
    callbacks = [keras_wm.BitErrorRate()] if any(marks) else []
    x, y = reviews(1600)
    model.fit(x, y, batch_size=32, epochs=2, verbose=2, callbacks=callbacks)
    return model, accuracy(model, *reviews(1000, seed=1))


marks = [keras_wm.WatermarkRegularizer(KEY, slot=slot) for slot in (0, 1)]
network, result = train(marks)
published = keras_wm.publish(network, "bidirectional_lstm.keras")
report(keras_wm.verify(published, KEY), train([None, None]), accuracy=result)
