"""Marks in slots: the search for them, and what it counts."""

import json

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm.scheme.detection import detect
from tests.command_line import run
from tests.conftest import fixed_key
from tests.marked_model import with_mark

SHAPE = (60, 40)
KEY = fixed_key(64)


@pytest.fixture(scope="module")
def kernels():
    """Two kernels of one shape. The second one is marked in slot 1."""
    rng = np.random.default_rng(5)
    kernels = [rng.normal(size=SHAPE).astype("float32") for _ in range(2)]
    return [kernels[0], with_mark(kernels[1], KEY.in_slot(1), 0.5)]


@pytest.fixture(scope="module")
def path(kernels, tmp_path_factory):
    names = ("plain", "marked")
    layers = [keras.layers.Dense(40, use_bias=False, name=name) for name in names]
    inputs = keras.Input((60,))
    model = keras.Model(inputs, [layer(inputs) for layer in layers])
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.kernel.assign(kernel)
    path = tmp_path_factory.mktemp("slots") / "model.keras"
    model.save(path)
    return path


def test_a_mark_is_found_in_its_slot_and_every_slot_is_counted(path, kernels):
    found = keras_wm.verify(path, KEY, slots=3)
    assert found.verdict == "proven"
    # Two kernels in three slots, and all slots together.
    assert (found.layer, found.slot, found.tried) == ("marked/0", 1, 6 + 1)
    alone = detect(kernels[1], KEY.in_slot(1)).log10_p
    assert found.log10_p == pytest.approx(alone + np.log10(2 * 6), rel=1e-5)
    assert json.loads(json.dumps(found.to_dict()))["slot"] == 1
    assert "counting 12 tests in 3 slots" in repr(found)
    assert "slot  1" in repr(found)


def test_a_mark_is_not_found_in_another_slot(path):
    assert not keras_wm.verify(path, KEY).marked
    assert not keras_wm.verify(path, KEY, "marked").marked
    assert not keras_wm.verify(path, KEY.in_slot(2)).marked


def test_a_key_in_a_slot_is_looked_for_in_this_slot(path):
    found = keras_wm.verify(path, KEY.in_slot(1))
    assert (found.verdict, found.slot, found.tried) == ("proven", 1, 2)


def test_layers_are_read_together_in_the_slots_of_their_order(path, kernels):
    found = keras_wm.verify(path, KEY, ["plain", "marked"], slots=2)
    z = [detect(kernel, KEY.in_slot(slot)).z for slot, kernel in enumerate(kernels)]
    # Scores in different slots are independent.
    jointly, alone = found.attempts
    expected = sum(z) / np.sqrt(2)
    np.testing.assert_allclose(jointly.detection.z, expected, rtol=1e-5)
    # Two kernels in two orders, sets of two sizes, and two ways to test.
    assert jointly.counted == 2 * 2 * 2
    # The second kernel is marked, the first one is not.
    np.testing.assert_allclose(alone.detection.z, z[1], rtol=1e-5)
    assert found.tried == 1 + 2
    assert not keras_wm.verify(path, KEY, ["marked", "plain"], slots=2).marked
    with pytest.raises(ValueError, match=r"each of the 2 layers.*slots=3"):
        keras_wm.verify(path, KEY, ["plain", "marked"], slots=3)


@pytest.mark.parametrize("slots", [0, -1, 1.5, True])
def test_the_number_of_slots_is_positive(path, slots):
    for search in (
        lambda: keras_wm.verify(path, KEY, slots=slots),
        lambda: keras_wm.identify(path, KEY, ["a"], slots=slots),
        lambda: keras_wm.scan(path, KEY, slots=slots),
    ):
        with pytest.raises(ValueError, match=r"number of slots.*slots="):
            search()


def test_a_reordered_mark_is_found_in_its_slot(path, kernels, tmp_path):
    order = np.random.default_rng(1).permutation(40)
    model = keras.saving.load_model(path)
    model.get_layer("marked").kernel.assign(kernels[1][:, order])
    model.save(tmp_path / "reordered.keras")
    found = keras_wm.verify(tmp_path / "reordered.keras", KEY, reordered=True, slots=2)
    assert found.marked
    assert found.slot == 1
    # Two kernels in two slots, each unchanged and in four families of arrangements.
    assert found.tried == 4 + 4 * 4


def test_an_aligned_mark_is_found_in_its_slot(path, tmp_path):
    rng = np.random.default_rng(2)
    layers = keras.layers
    owners = keras.Sequential(
        [
            keras.Input((30,)),
            layers.Dense(60, "relu", name="first"),
            layers.Dense(40, "relu", name="second"),
            layers.Dense(20, name="third"),
        ]
    )
    for layer in owners.layers:
        layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    second = owners.get_layer("second")
    second.kernel.assign(with_mark(np.asarray(second.kernel), KEY.in_slot(1), 0.5))
    owners.save(tmp_path / "owners.keras")
    order = rng.permutation(60)
    first = owners.get_layer("first")
    first.kernel.assign(np.asarray(first.kernel)[:, order])
    second.kernel.assign(np.asarray(second.kernel)[order])
    owners.save(tmp_path / "suspect.keras")
    suspect, reference = tmp_path / "suspect.keras", tmp_path / "owners.keras"
    assert not keras_wm.verify(suspect, KEY, slots=2).marked
    found = keras_wm.verify(suspect, KEY, reference=reference, slots=2)
    assert found.verdict == "proven"
    assert (found.layer, found.slot) == ("second/0", 1)


def test_recipients_are_named_by_marks_in_any_slot(path, kernels, tmp_path):
    model = keras.saving.load_model(path)
    copy = with_mark(kernels[0], KEY.for_recipient("b").in_slot(2), 0.5)
    model.get_layer("plain").kernel.assign(copy)
    model.save(tmp_path / "copy.keras")
    found = keras_wm.identify(tmp_path / "copy.keras", KEY, ["a", "b", "c"], slots=3)
    assert [trace.recipient for trace in found.named] == ["b"]
    # The owner's key and three recipients' keys, each on two kernels in three slots.
    assert found.tests == 4 * 2 * 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_scan_searches_all_slots(path, workers, tmp_path):
    record = tmp_path / "scan.jsonl"
    options = {"slots": 2, "workers": workers, "record": record}
    report = keras_wm.scan([path], [KEY], **options)
    (match,) = report.found
    assert (match.key.layer, match.key.slot) == ("marked/0", 1)
    alone = keras_wm.verify(path, KEY, slots=2)
    # A scan does not test the slots together, so it counts half as many tests.
    assert match.log10_p == pytest.approx(alone.log10_p - np.log10(2))
    assert keras_wm.scan([path], [KEY], **options).found == [match]
    with pytest.raises(ValueError, match="slots"):
        keras_wm.scan([path], [KEY], record=record)


def test_the_command_line_takes_the_number_of_slots(path, tmp_path):
    KEY.save(tmp_path / "owner.key")
    key = ("--key", tmp_path / "owner.key")
    assert run("verify", "--no-sandbox", path, *key).returncode == 1
    found = run("verify", "--no-sandbox", path, *key, "--slots", "2", "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout)["slot"] == 1
    scanned = run("scan", path, *key, "--slots", "2")
    assert scanned.returncode == 0
    assert "slot 1" in scanned.stdout
