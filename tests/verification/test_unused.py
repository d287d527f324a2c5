"""Marks in weights that a model does not use: neither found nor not found."""

import json

import keras
import numpy as np
import pytest

import keras_wm
from tests.command_line import run
from tests.conftest import fixed_key
from tests.files.forged_weights import adding, edit_archive
from tests.marked_model import with_mark

KEY = fixed_key(64)
TEXT = "found in weights that this model does not use"


def innocent_model():
    rng = np.random.default_rng(3)
    layers = [keras.layers.Dense(40, name="first"), keras.layers.Dense(50)]
    model = keras.Sequential([keras.Input((60,)), *layers])
    for layer in layers:
        layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    return model


@pytest.fixture(scope="module")
def innocent(tmp_path_factory):
    path = tmp_path_factory.mktemp("unused") / "innocent.keras"
    innocent_model().save(path)
    return path


def adding_mark(file, key):
    """Returns a file of an innocent model to which somebody added a marked kernel."""
    kernel = np.random.default_rng(6).normal(size=(60, 40))
    added = adding("layers/leftover/vars/0", with_mark(kernel, key, 0.5))
    return edit_archive(file, file.with_name(f"{key.commitment[:8]}.keras"), added)


@pytest.fixture(scope="module")
def forged(innocent):
    return adding_mark(innocent, KEY)


def test_a_mark_in_an_unused_weight_is_neither_found_nor_not_found(forged, innocent):
    found = keras_wm.verify(forged, KEY)
    assert (found.verdict, found.marked) == ("unused", False)
    assert repr(found).splitlines()[0].endswith(TEXT.upper())
    assert "leftover" in dict(found.rows())["not used"]
    report = json.loads(json.dumps(found.to_dict()))
    assert report["verdict"] == "unused"
    assert report["unused"]["layer"] == "leftover/0"
    # The unused kernel was tested and is counted.
    assert (found.tried, found.finding.counted) == (3, 3)
    assert found.log10_p > -2
    assert not found.meets(None)
    assert keras_wm.verify(innocent, KEY).verdict == "not found"


def test_a_mark_in_a_used_weight_is_found_beside_an_unused_one(forged, tmp_path):
    model = innocent_model()
    kernel = model.get_layer("first").kernel
    kernel.assign(with_mark(np.asarray(kernel), KEY, 0.3))
    model.save(tmp_path / "marked.keras")
    both = adding_mark(tmp_path / "marked.keras", KEY)
    found = keras_wm.verify(both, KEY)
    assert (found.verdict, found.layer) == ("proven", "first/0")
    assert found.unused.layer == "leftover/0"


@pytest.mark.parametrize(
    "options",
    [
        {"layer": "leftover"},
        {"layer": ["leftover", "first"]},
        {"reordered": True},
        {"slots": 2},
    ],
)
def test_no_option_makes_an_unused_weight_a_finding(forged, options):
    found = keras_wm.verify(forged, KEY, **options)
    assert (found.verdict, found.marked) == ("unused", False)


def test_a_recipient_is_not_named_by_an_unused_weight(innocent):
    leak = adding_mark(innocent, KEY.for_recipient("b"))
    found = keras_wm.identify(leak, KEY, ["a", "b"])
    assert found.named == []
    assert [trace.recipient for trace in found.unused] == ["b"]
    assert TEXT.upper() in repr(found).splitlines()[0]


def test_a_scan_reports_an_unused_weight_apart(forged, innocent):
    report = keras_wm.scan([forged, innocent], KEY, workers=1)
    assert report.found == []
    (match,) = report.unused
    assert (match.file, match.verdict) == (str(forged), "unused")
    assert TEXT in repr(report)
    assert report.tests == 3 + 2
    assert len(json.loads(json.dumps(report.to_dict()))["unused"]) == 1


def test_the_exit_status_is_3(forged, innocent, tmp_path):
    KEY.save(tmp_path / "owner.key")
    (tmp_path / "names.txt").write_text("a\nb\n")
    key = ("--key", tmp_path / "owner.key")
    verified = run("verify", "--no-sandbox", forged, *key)
    assert verified.returncode == 3
    assert TEXT.upper() in verified.stdout
    scanned = run("scan", forged, innocent, *key)
    assert scanned.returncode == 3
    assert TEXT in " ".join(scanned.stdout.split())
    leak = adding_mark(innocent, KEY.for_recipient("b"))
    named = run(
        "verify", "--no-sandbox", leak, *key, "--recipients", tmp_path / "names.txt"
    )
    assert named.returncode == 3


def test_a_report_says_that_a_file_has_no_config(tmp_path):
    model = innocent_model()
    kernel = model.get_layer("first").kernel
    kernel.assign(with_mark(np.asarray(kernel), KEY, 0.5))
    model.save_weights(tmp_path / "a.weights.h5")
    found = keras_wm.verify(tmp_path / "a.weights.h5", KEY)
    assert found.verdict == "proven"
    assert any("no config" in note for note in found.notes)
    assert not any("no config" in note for note in keras_wm.verify(model, KEY).notes)
    (match,) = keras_wm.scan(tmp_path / "a.weights.h5", KEY, workers=1).found
    assert "without a config" in match.key.note


class Custom(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.layers.Dense(40)

    def call(self, inputs):
        return self.inner(inputs)


def test_a_report_names_classes_whose_weights_are_not_known(tmp_path):
    model = keras.Sequential([keras.Input((60,)), Custom()])
    model.save(tmp_path / "a.keras")
    found = keras_wm.verify(tmp_path / "a.keras", KEY)
    assert any("not Keras's own: 'Custom'" in note for note in found.notes)
