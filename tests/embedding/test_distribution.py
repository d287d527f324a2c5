"""Marking on several devices, in a separate process: devices are fixed at its start."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

# A child process imports the backend and trains.
pytestmark = [pytest.mark.backends, pytest.mark.study]

BACKEND = keras.backend.backend()

# Several devices see the same data as one: the same batches, the same losses. Momentum
# gives the optimizer a variable of the kernel's shape.
TRAINING = """
    import json
    import keras, numpy as np
    from keras_wm import BitErrorRate, WatermarkRegularizer, attach
    from tests.conftest import fixed_key
    from tests.models import compile_model, dense_model, expected_ber, fit, kernel_of

    key = fixed_key()

    def trained(route="constructor", strength=3e-3, epochs=4, units=64):
        mark = WatermarkRegularizer(key, strength=strength, regularizer="l2")
        host = "l2" if route == "attach" else mark
        model = dense_model(host, compiled=False, units=units)
        compile_model(model, keras.optimizers.SGD(0.05, momentum=0.9))
        if route == "attach":
            attach(model, "wide", key, strength=strength)
        before = expected_ber(kernel_of(model), key)
        history = fit(model, epochs, [BitErrorRate()])
        history["strength"] = [model.layers[0].kernel.regularizer.strength]
        history["by hand"] = [before, expected_ber(kernel_of(model), key)]
        history["kernel"] = shards(model.layers[0].kernel)
        history["momentum"] = shards(model.optimizer.variables[2])
        return history

    runs = {
        "margin": {},
        "attach and default strength": {
            "route": "attach", "strength": None, "epochs": 12
        },
    }
    # A kernel of this size gets the penalty in one of four steps, which the last digits
    # of its weights choose.
    large = {"units": 8192, "strength": 1e-2}
    answers = {}
"""

ON_TENSORFLOW = """
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )

    def shards(variable):
        copies = getattr(variable.value, "values", [variable.value])
        return [[copy.device[-5:], list(copy.shape)] for copy in copies]

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for name, arguments in runs.items():
        answers[f"one: {name}"] = trained(**arguments)
        with strategy.scope():
            answers[f"mirrored: {name}"] = trained(**arguments)
    with strategy.scope():
        answers["mirrored: large"] = trained(**large)
    print("ANSWERS", json.dumps(answers))
"""

ON_JAX = """
    from keras.distribution import DataParallel, DeviceMesh, LayoutMap, ModelParallel

    def shards(variable):
        parts = variable.value.addressable_shards
        return [[str(part.device), list(part.data.shape)] for part in parts]

    def parallel(*axes):
        layout = LayoutMap(DeviceMesh((2, 2), ["batch", "model"]))
        layout[".*wide.*kernel.*"] = axes
        return ModelParallel(layout_map=layout, batch_dim_name="batch")

    for name, arguments in runs.items():
        ways = {
            "one": None,
            "data": DataParallel(),
            "rows": parallel("model", None),
            "columns": parallel(None, "model"),
        }
        if name != "margin":
            del ways["data"], ways["rows"]
        for way, distribution in ways.items():
            keras.distribution.set_distribution(distribution)
            answers[f"{way}: {name}"] = trained(**arguments)
    answers["columns: large"] = trained(**large)
    print("ANSWERS", json.dumps(answers))
"""

SCRIPTS = {"tensorflow": ON_TENSORFLOW, "jax": ON_JAX}
RUNS = ["margin", "attach and default strength"]
PAIRS = {
    "tensorflow": [("mirrored", run) for run in RUNS],
    "jax": [
        ("data", "margin"),
        ("rows", "margin"),
        *(("columns", run) for run in RUNS),
    ],
    "torch": [],
}[BACKEND]


@pytest.fixture(scope="module")
def answers():
    """The histories on one device and on several, from one process."""
    if BACKEND not in SCRIPTS:
        pytest.skip(f"Keras 3 distributes nothing over CPUs on {BACKEND}")
    script = textwrap.dedent(TRAINING) + textwrap.dedent(SCRIPTS[BACKEND])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.split("ANSWERS", 1)[1])


# How many devices hold a part of the kernel, and the shape of each part.
LAYOUTS = {
    "mirrored": (2, [32, 64]),
    "data": (4, [32, 64]),
    "rows": (4, [16, 64]),
    "columns": (4, [32, 32]),
}


@pytest.mark.parametrize("way", sorted({way for way, _ in PAIRS}))
def test_kernel_and_optimizer_lie_on_the_devices_as_asked(answers, way):
    devices, shape = LAYOUTS[way]
    for variable in ("kernel", "momentum"):
        parts = answers[f"{way}: margin"][variable]
        assert len({device for device, _ in parts}) == devices
        assert [part for _, part in parts] == [shape] * devices


@pytest.mark.parametrize(("way", "run"), PAIRS)
def test_several_devices_give_the_history_of_one(answers, way, run):
    one, several = answers[f"one: {run}"], answers[f"{way}: {run}"]
    # A step of the mark ranks the weights, and the order of a sum over the devices can
    # swap two that differ in the last digit.
    for value, close in {
        "loss": 1e-5,
        "ber": 1e-5,
        "z_mean": 1e-4,
        "z_min": 1e-4,
        "embedding_loss": 1e-4,
    }.items():
        np.testing.assert_allclose(several[value], one[value], rtol=close, atol=close)


LARGE = {"tensorflow": ["mirrored"], "jax": ["columns"], "torch": []}[BACKEND]


@pytest.mark.parametrize(("way", "run"), [*PAIRS, *((way, "large") for way in LARGE)])
def test_a_mark_is_completed_on_several_devices(answers, way, run):
    history = answers[f"{way}: {run}"]
    before, after = history["by hand"]
    assert before > 0.3
    assert after == history["ber"][-1] == 0
