"""Marking on several devices, in a separate process: devices are fixed at its start."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

# Three child processes import the backend and train.
pytestmark = [pytest.mark.backends, pytest.mark.study]

BACKEND = keras.backend.backend()

# Two replicas see the same data as one device: the same batches, the same losses.
TRAINING = """
    import json
    import keras, numpy as np
    from keras_wm import BitErrorRate, WatermarkRegularizer, attach
    from tests.conftest import fixed_key
    from tests.models import (
        MARKING_EPOCHS, dense_model, expected_ber, fit, kernel_of
    )

    key = fixed_key()

    def trained(loss="margin", route="constructor"):
        if route == "attach":
            model = dense_model("l2")
            attach(model, "wide", key, loss, 1e-2)
        else:
            model = dense_model(WatermarkRegularizer(key, loss, 1e-2, regularizer="l2"))
        history = fit(model, MARKING_EPOCHS, [BitErrorRate()])
        history["by hand"] = expected_ber(kernel_of(model), key)
        return history

    runs = {
        "margin": {},
        "attach and crossentropy": {"loss": "crossentropy", "route": "attach"},
    }
    answers = {"one": {}, "several": {}}
"""

ON_TENSORFLOW = """
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    answers["replicas"] = strategy.num_replicas_in_sync
    for name, arguments in runs.items():
        answers["one"][name] = trained(**arguments)
        with strategy.scope():
            answers["several"][name] = trained(**arguments)
    print("ANSWERS", json.dumps(answers))
"""

ON_JAX = """
    import jax

    answers["replicas"] = len(jax.devices())
    for name, arguments in runs.items():
        keras.distribution.set_distribution(None)
        answers["one"][name] = trained(**arguments)
        mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"])
        layout = keras.distribution.LayoutMap(mesh)
        layout[".*wide/kernel"] = (None, "model")
        keras.distribution.set_distribution(
            keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
        )
        answers["several"][name] = trained(**arguments)
    print("ANSWERS", json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers():
    """The histories on one device and on several, from one process."""
    scripts = {"tensorflow": ON_TENSORFLOW, "jax": ON_JAX}
    if BACKEND not in scripts:
        pytest.skip(f"Keras 3 distributes nothing over CPUs on {BACKEND}")
    script = textwrap.dedent(TRAINING) + textwrap.dedent(scripts[BACKEND])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.split("ANSWERS", 1)[1])


def test_there_were_several_devices(answers):
    assert answers["replicas"] == {"tensorflow": 2, "jax": 4}[BACKEND]


@pytest.mark.parametrize("run", ["margin", "attach and crossentropy"])
def test_several_devices_give_the_history_of_one(answers, run):
    one, several = answers["one"][run], answers["several"][run]
    for value in ("loss", "ber", "z_mean", "embedding_loss"):
        np.testing.assert_allclose(several[value], one[value], rtol=1e-4, atol=1e-5)


def test_a_mark_is_completed_on_several_devices(answers):
    assert answers["several"]["margin"]["ber"][-1] == 0


def test_the_whole_kernel_is_read(answers):
    history = answers["several"]["margin"]
    assert history["ber"][-1] == pytest.approx(history["by hand"])
