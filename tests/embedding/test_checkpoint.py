"""attach(checkpoint=): the network from before its mark, in a file."""

import json

import keras
import numpy as np
import pytest

from keras_wm import attach, detach, publish, verify
from keras_wm.errors import AlignmentError
from keras_wm.research.attacks import equivalence
from tests.command_line import run
from tests.conftest import fixed_key
from tests.models import (
    LAYER,
    compile_model,
    data,
    dense_model,
    find_layer,
    fit_eagerly,
    functional_model,
    mark,
    nested_model,
    outputs,
    penalty,
    subclassed_model,
    write_mark,
)


@pytest.mark.backends
@pytest.mark.parametrize("build", [dense_model, functional_model, nested_model])
def test_the_checkpoint_is_the_network_before_its_first_step(key, tmp_path, build):
    model = build()
    x, _ = data()
    before = outputs(model, x)
    path = tmp_path / "before.keras"
    attach(model, LAYER, key, strength=1e-2, checkpoint=path)
    fit_eagerly(model)
    assert np.abs(outputs(model, x) - before).max() > 1e-3
    np.testing.assert_array_equal(outputs(keras.saving.load_model(path), x), before)
    assert b"keras_wm" not in path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["before.keras"]


@pytest.mark.backends
def test_the_mark_is_trained_as_without_a_checkpoint(key, tmp_path):
    model, other = dense_model(), dense_model()
    attach(model, LAYER, key, checkpoint=tmp_path / "a.keras")
    attach(other, LAYER, key)
    assert penalty(model) == penalty(other) > 0


def assert_refused(model, key, path, error, message, layer=LAYER, **arguments):
    """Asserts that a checkpoint is refused and that nothing was written or attached."""
    before = penalty(model)
    with pytest.raises(error, match=message):
        attach(model, layer, key, checkpoint=path, **arguments)
    assert penalty(model) == before
    assert not list(path.parent.glob("*.keras"))


def test_a_second_attach_cannot_save_a_checkpoint(key, tmp_path):
    model = dense_model()
    attach(model, LAYER, key)
    path = tmp_path / "a.keras"
    message = f"has a mark on '{LAYER}' already.*first attach"
    assert_refused(model, fixed_key(8), path, ValueError, message, layer="logits")


def test_a_mark_of_the_constructor_comes_first_as_well(key, tmp_path):
    model = dense_model(mark(key))
    path = tmp_path / "a.keras"
    message = r"has a mark on .*keras_wm\.publish"
    assert_refused(model, fixed_key(8), path, ValueError, message, layer="logits")


@pytest.mark.parametrize("slot", [0, 1])
def test_a_network_that_was_marked_before_has_no_checkpoint(key, tmp_path, slot):
    """The penalty is detached, but the weights know the key."""
    model = dense_model()
    write_mark(model, key, strength=2)
    path = tmp_path / "a.keras"
    message = f"carries the mark of this key already, in .*{LAYER}"
    assert_refused(model, key, path, ValueError, message, slot=slot)


def test_a_network_with_another_keys_mark_has_a_checkpoint(key, tmp_path):
    """A recipient's copy is marked after the owner's mark was embedded."""
    model = dense_model()
    write_mark(model, key, strength=2)
    recipients = key.for_recipient("customer-17")
    attach(model, LAYER, recipients, checkpoint=tmp_path / "a.keras")
    assert verify(tmp_path / "a.keras", key).marked
    assert not verify(tmp_path / "a.keras", recipients).marked


def test_an_existing_file_is_kept(key, tmp_path):
    path = tmp_path / "a.keras"
    path.write_text("precious")
    model = dense_model()
    with pytest.raises(FileExistsError, match=r"a\.keras' exists already"):
        attach(model, LAYER, key, checkpoint=path)
    assert path.read_text() == "precious"
    assert penalty(model) == 0


def test_other_paths_and_networks_are_refused(key, tmp_path):
    model, path = dense_model(), tmp_path / "a.weights.h5"
    assert_refused(model, key, path, ValueError, r"ending in '\.keras'.*weights\.h5")
    path = tmp_path / "missing" / "a.keras"
    assert_refused(model, key, path, FileNotFoundError, "no folder .*missing")
    path = tmp_path / "a.keras"
    message = "how its layers are connected"
    assert_refused(subclassed_model(), key, path, AlignmentError, message)
    too_long = fixed_key(40, "direct")
    assert_refused(dense_model(), too_long, path, ValueError, "Too many bits")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A marked chain, its checkpoint, and a copy whose channels were rearranged.

    The last layer of the copy has another number of classes, so that only the tested
    kernel shows the order of its own filters.
    """
    folder = tmp_path_factory.mktemp("case")
    key = fixed_key(64)
    networks = {}
    for classes in (4, 7):
        keras.utils.set_random_seed(3)
        chain = [keras.layers.Dense(48, "relu", name=name) for name in ("first", LAYER)]
        layers = [keras.Input((32,)), *chain, keras.layers.Dense(classes, name="head")]
        networks[classes] = compile_model(keras.Sequential(layers, name="chain"))
    owners, copy = networks[4], networks[7]
    attach(owners, LAYER, key, checkpoint=folder / "before.keras")
    detach(owners)
    write_mark(owners, key, strength=0.7)
    for name in ("first", LAYER):
        find_layer(copy, name).set_weights(find_layer(owners, name).get_weights())
    publish(equivalence.CHAINED(copy, seed=5), folder / "copy.keras")
    publish(owners, folder / "owners.keras")
    key.save(folder / "owner.key")
    return key, folder


def attempts_of(verification):
    return {attempt.name: attempt for attempt in verification.attempts}


def test_a_checkpoint_finds_what_the_marked_network_cannot_align(case):
    key, folder = case
    suspect, reference = folder / "copy.keras", folder / "owners.keras"
    alone = verify(suspect, key, LAYER, reference=reference)
    assert not alone.marked
    assert "Cannot align" in alone.notes[-1]
    found = verify(suspect, key, LAYER, checkpoint=folder / "before.keras")
    assert found.log10_p < -9
    aligned = attempts_of(found)["aligned with the checkpoint"]
    assert aligned.undone["moved"] > 0
    assert "channels moved" in dict(found.rows())["aligned with the checkpoint"]
    report = json.loads(json.dumps(found.to_dict()))
    assert report["attempts"]["aligned with the checkpoint"]["moved"] > 0


def test_both_alignments_are_tested_and_counted(case):
    key, folder = case
    owners, before = folder / "owners.keras", folder / "before.keras"
    found = verify(owners, key, reference=owners, checkpoint=before, reordered=True)
    attempts = attempts_of(found)
    assert list(attempts) == [
        "unaligned",
        "aligned",
        "aligned with the checkpoint",
        "reordered",
    ]
    assert found.tried == sum(attempt.tried for attempt in attempts.values())
    assert all(attempt.log10_p < -9 for attempt in attempts.values())


def test_a_checkpoint_is_given_in_the_forms_of_a_reference(case):
    key, folder = case
    suspect, before = folder / "copy.keras", folder / "before.keras"
    expected = verify(suspect, key, LAYER, checkpoint=before)
    model = keras.saving.load_model(before)
    with before.open("rb") as file:
        for form in (model, str(before), file):
            found = verify(suspect, key, LAYER, checkpoint=form)
            assert found.log10_p == pytest.approx(expected.log10_p)
    found = verify(suspect, key, LAYER, checkpoint=before, sandbox=True)
    assert found.to_dict() == expected.to_dict()


def test_a_checkpoint_without_a_config_is_refused(case, tmp_path):
    key, folder = case
    model = keras.saving.load_model(folder / "before.keras")
    model.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(AlignmentError, match="how its layers are connected"):
        verify(folder / "copy.keras", key, checkpoint=tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="checkpoint"):
        verify(model, key, [LAYER, "first"], checkpoint=model)


def test_the_command_line_accepts_a_checkpoint(case):
    _, folder = case
    arguments = ("verify", folder / "copy.keras", "--key", folder / "owner.key")
    found = run(*arguments, "--checkpoint", folder / "before.keras", "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout)["attempts"]["aligned with the checkpoint"]["moved"]
    assert run(*arguments).returncode == 1
