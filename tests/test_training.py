"""Embedding for real: optimizers, precisions, compilation, distribution."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_wm import WatermarkRegularizer, detect
from tests.conftest import fixed_key

pytestmark = pytest.mark.backends


def train(optimizer, strength=None, loss="margin", epochs=12, dtype=None, **compiled):
    """Trains a small network on noise; returns its marked kernel and history."""
    keras.utils.set_random_seed(3)
    key = fixed_key(16, filters="keyed" if loss == "margin" else "mean")
    regularizer = WatermarkRegularizer(key, loss=loss, strength=strength)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 4), dtype="float32"),
            layers.Conv2D(
                24, 3, activation="relu", dtype=dtype, kernel_regularizer=regularizer
            ),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, dtype="float32" if dtype else None),
        ]
    )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compiled,
    )
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(96, 6, 6, 4)), rng.integers(0, 3, 96)
    history = model.fit(x.astype("float32"), y, 16, epochs, verbose=0).history
    kernel = ops.convert_to_numpy(ops.cast(model.layers[0].kernel, "float32"))
    return kernel, history["loss"], key


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.3),
    "Nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(3e-3),
    "AdamW": lambda: keras.optimizers.AdamW(3e-3, weight_decay=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_message_is_embedded_by_every_optimizer(name):
    kernel, losses, key = train(OPTIMIZERS[name](), strength=1e-3)
    assert np.isfinite(losses).all()
    assert detect(kernel, key).ber == 0


def test_the_papers_mark_is_embedded():
    kernel, _, key = train(OPTIMIZERS["Nesterov"](), 0.01, "crossentropy", epochs=30)
    assert detect(kernel, key).ber == 0


@pytest.mark.parametrize(
    "compiled", [{"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True}]
)
def test_it_trains_compiled_and_eagerly(compiled):
    if keras.backend.backend() == "torch" and compiled.get("jit_compile"):
        pytest.skip("torch.compile needs a C++ compiler at run time")
    kernel, losses, key = train(OPTIMIZERS["Nesterov"](), 1e-3, epochs=8, **compiled)
    assert np.isfinite(losses).all()
    assert detect(kernel, key).ber == 0


@pytest.mark.parametrize(
    "dtype", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"]
)
@pytest.mark.parametrize("loss", ["margin", "crossentropy"])
def test_no_precision_gives_nan(dtype, loss):
    kernel, losses, key = train(
        keras.optimizers.SGD(0.05, momentum=0.9), 1e-2, loss, epochs=4, dtype=dtype
    )
    assert np.isfinite(kernel).all()
    assert np.isfinite(losses).all()
    assert detect(kernel, key).ber < 0.5


def test_loss_scaling_does_not_disturb_the_mark():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        kernel, losses, key = train(OPTIMIZERS["Adam"](), 1e-3)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(losses).all()
    assert detect(kernel, key).ber == 0


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's own"
)
def test_two_replicas_train_as_one_device_does():
    program = """
import keras, numpy as np, tensorflow as tf
from keras_wm import WatermarkRegularizer, detect
from tests.conftest import fixed_key

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
key, losses = fixed_key(16), []
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 20)).astype("f4"), rng.normal(size=(64, 4)).astype("f4")
for strategy in (
    tf.distribute.get_strategy(),
    tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        mark = WatermarkRegularizer(key, strength=1e-2)
        model = keras.Sequential([
            keras.Input((20,)),
            keras.layers.Dense(40, kernel_regularizer=mark),
            keras.layers.Dense(4),
        ])
        model.compile(keras.optimizers.SGD(0.1), "mse")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    losses.append(model.fit(data, epochs=20, verbose=0).history["loss"])
    assert strategy.num_replicas_in_sync == len(losses)
np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
assert detect(np.asarray(model.layers[0].kernel), key).ber == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True)
