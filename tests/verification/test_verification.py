"""verify and inspect, of files and of models in memory."""

import json
import subprocess
import sys

import numpy as np
import pytest

import keras_wm
from tests.conftest import fixed_key
from tests.marked_model import LAYER
from tests.models import most_bits

SUFFIXES = (".keras", ".h5", ".weights.h5")


def expected_ber(kernel, key):
    """The bit error rate, computed from the definition of the scheme."""
    flat = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    mark = key.for_shape(flat.shape)
    y = [
        row @ flat @ mark.filter_weights[j % key.groups]
        for j, row in enumerate(mark.matrix)
    ]
    return np.mean((np.array(y) > 0) != mark.message)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mark_is_found_in_a_published_file(marked, suffix):
    found = keras_wm.verify(marked.files[suffix], marked.key)
    assert found.marked
    assert found.verdict == "proven"
    assert found.layer.startswith(LAYER)
    assert (found.ber, found.matches, found.bits) == (0, 64, 64)
    assert found.log10_p_hard == pytest.approx(-64 * np.log10(2))
    assert found.log10_p_soft < found.log10_p_hard


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_has_the_same_scores_as_the_model_in_memory(marked, suffix):
    in_file = keras_wm.verify(marked.files[suffix], marked.key, LAYER)
    in_memory = keras_wm.verify(marked.model, marked.key, LAYER)
    np.testing.assert_allclose(in_file.z, in_memory.z)
    kernel = np.asarray(marked.model.get_layer(LAYER).kernel)
    assert in_memory.ber == expected_ber(kernel, marked.key)


def test_another_key_finds_nothing(marked):
    # False alarm below 1e-9 by the definition of the verdict; the key is fixed.
    stranger = fixed_key(64, secret=b"\x07" * 32)
    found = keras_wm.verify(marked.files[".keras"], stranger)
    assert not found.marked
    assert found.verdict == "not found"
    assert found.log10_p > -2


def test_the_p_value_is_corrected_for_the_kernels_tried(marked):
    key = marked.key
    everywhere = keras_wm.verify(marked.files[".keras"], key)
    fitting = [
        variable
        for variable in marked.model.weights
        if len(variable.shape) > 1 and key.bits <= most_bits(variable.shape)
    ]
    assert everywhere.tried == len(fitting) > 1
    named = keras_wm.verify(marked.files[".keras"], key, LAYER)
    assert named.tried == 1
    # Another layer could have been named, so all of them count.
    alone = named.detection.log10_p
    for verification in (everywhere, named):
        assert verification.log10_p == pytest.approx(alone + np.log10(len(fitting)))


def test_the_error_about_a_missing_layer_lists_the_layers(marked):
    with pytest.raises(keras_wm.LayerNotFoundError, match=r"'wider'.*'narrow'.*'wide'"):
        keras_wm.verify(marked.files[".keras"], marked.key, "wider")


def test_the_error_about_too_many_bits_names_t_m_and_the_limit(marked):
    with pytest.raises(ValueError, match=r"T=300 .*M=9 .*T <= 269"):
        keras_wm.verify(marked.files[".keras"], fixed_key(300), "narrow")


def test_a_model_without_capacity_is_not_found_and_the_report_says_why(marked):
    found = keras_wm.verify(marked.files[".keras"], fixed_key(10**5))
    assert not found.marked
    assert (found.tried, found.skipped, found.layer) == (0, 3, None)
    assert "3 kernels can hold" in repr(found)
    assert found.plot().axes
    json.dumps(found.to_dict())


def test_an_explicit_key_proves_nothing_by_itself_and_the_report_says_so(marked):
    kernel = np.asarray(marked.model.get_layer(LAYER).kernel)
    mean_filter = kernel.mean(axis=-1).ravel()
    # For a given kernel, anybody can solve for a projection with any message.
    message = np.resize([1, 0], 64)
    matrix = np.outer(2.0 * message - 1, mean_filter)
    forged = keras_wm.WatermarkKey.from_arrays(matrix, message)
    found = keras_wm.verify(marked.files[".keras"], forged, LAYER)
    assert found.ber == 0
    assert not found.certified
    assert "proves nothing by itself" in repr(found)
    assert found.to_dict()["certified"] is False


def test_the_report_can_be_written_as_json(marked):
    found = keras_wm.verify(marked.files[".keras"], marked.key)
    again = json.loads(json.dumps(found.to_dict()))
    assert again["ber"] == 0
    assert again["marked"] is True
    assert again["kernels_tried"] == found.tried
    assert again["log10_p"] == found.log10_p


def test_the_html_report_escapes_the_file_name(marked, tmp_path):
    hostile = tmp_path / "<script>.keras"
    hostile.write_bytes(marked.files[".keras"].read_bytes())
    page = keras_wm.verify(hostile, marked.key)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_report_draws_its_scores(marked):
    figure = keras_wm.verify(marked.files[".keras"], marked.key).plot()
    (axes,) = figure.axes
    assert "64 of 64 bits" in axes.get_title(loc="left")


@pytest.mark.parametrize("alpha", [0, 1, -1])
def test_alpha_must_be_a_probability(marked, alpha):
    with pytest.raises(ValueError, match="alpha"):
        keras_wm.verify(marked.files[".keras"], marked.key, alpha=alpha)


def test_a_key_or_a_model_of_another_type_is_refused(marked):
    with pytest.raises(TypeError, match=r"WatermarkKey\.load"):
        keras_wm.verify(marked.files[".keras"], "owner.key")
    with pytest.raises(TypeError, match="Expected a model file"):
        keras_wm.verify(3, marked.key)


def test_a_bfloat16_model_in_memory_is_read(marked):
    import keras

    twin = keras.models.clone_model(marked.model, clone_function=_without_mark)
    twin.set_weights(marked.model.get_weights())
    for variable in twin.weights:
        assert "float32" in str(variable.dtype)
    half = keras.Sequential(
        [
            keras.Input((288,)),
            keras.layers.Dense(32, dtype="bfloat16", use_bias=False, name=LAYER),
        ]
    )
    kernel = np.asarray(marked.model.get_layer(LAYER).kernel)
    kernel = np.pad(kernel.reshape(-1, 32), ((0, 288 - kernel.size // 32), (0, 0)))
    half.layers[0].kernel.assign(kernel)
    found = keras_wm.verify(half, marked.key)
    assert found.tried == 1
    assert found.bits == 64


def _without_mark(layer):
    config = layer.get_config()
    config.pop("kernel_regularizer", None)
    return layer.__class__.from_config(config)


def test_inspect_lists_every_kernel_and_its_capacity(marked):
    inspection = keras_wm.inspect(marked.files[".keras"])
    assert len(inspection) == 3
    assert [inspection[0], *inspection[1:]] == list(inspection)
    reports = {report.layer: report for report in inspection}
    assert set(reports) == {"narrow", "wide", "logits"}
    wide = reports["wide"]
    assert wide.shape == (3, 3, 16, 32)
    # Balanced signs are orthogonal to one of 32 directions, the mean filter.
    assert wide.holds == 144 * 31
    assert wide.unseen == int(144 * 32 * (0.17 / 4) ** 2)
    assert reports["logits"].holds == 32 * 3


def test_verify_and_inspect_import_no_training_framework(marked, tmp_path):
    marked.key.save(tmp_path / "owner.key")
    program = (
        "import sys, keras_wm\n"
        f"key = keras_wm.WatermarkKey.load({str(tmp_path / 'owner.key')!r})\n"
        f"assert keras_wm.verify({str(marked.files['.keras'])!r}, key).marked\n"
        f"keras_wm.inspect({str(marked.files['.h5'])!r})\n"
        "for name in ('keras', 'tensorflow', 'jax', 'torch', 'matplotlib'):\n"
        "    assert name not in sys.modules, name\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], check=False)
    assert finished.returncode == 0


def test_a_sandbox_gives_the_same_report_once_or_many_times(marked):
    here = keras_wm.verify(marked.files[".keras"], marked.key)
    once = keras_wm.verify(marked.files[".keras"], marked.key, sandbox=True)
    assert once.to_dict() == here.to_dict()
    with keras_wm.Sandbox() as sandbox:
        for suffix in SUFFIXES:
            path = marked.files[suffix]
            found = keras_wm.verify(path, marked.key, sandbox=sandbox)
            assert found.to_dict() == keras_wm.verify(path, marked.key).to_dict()
            assert keras_wm.inspect(path, sandbox=sandbox) == keras_wm.inspect(path)


def test_limits_apply_with_and_without_a_sandbox(marked):
    limits = keras_wm.Limits(array_bytes=1000)
    for sandbox in (False, True):
        with pytest.raises(
            keras_wm.UnsafeFileError, match=r"Limits\.array_bytes=1,000"
        ):
            keras_wm.verify(
                marked.files[".h5"], marked.key, limits=limits, sandbox=sandbox
            )


@pytest.mark.study
def test_the_projection_of_a_large_kernel_is_computed_in_blocks(rng):
    # 256 x 40,000 entries are too many to be cached, so the rows come in blocks.
    key = fixed_key(256)
    kernel = rng.normal(size=(40_000, 4))
    found = keras_wm.detect(kernel, key)
    mark = key.for_shape(kernel.shape)
    weights, matrix = mark.filter_weights, mark.matrix
    for bit in (0, 17, 255):
        u = kernel @ weights[bit % key.groups]
        y = matrix[bit] @ u / np.linalg.norm(u)
        assert found.z[bit] == pytest.approx((2.0 * mark.message[bit] - 1) * y)


@pytest.mark.parametrize(
    ("wrong", "error"), [(-1, ValueError), ("2 GB", TypeError), (True, TypeError)]
)
def test_a_limit_must_be_a_number_that_is_not_negative(wrong, error):
    with pytest.raises(error, match="array_bytes="):
        keras_wm.Limits(array_bytes=wrong)
