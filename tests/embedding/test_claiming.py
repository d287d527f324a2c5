"""publish(claim=...): the claim of a model is written with its file, or neither."""

from pathlib import Path

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm import Claim, ClaimError, attach, detach, publish
from keras_wm.claims import ClaimedLayer, ModelDigest
from tests.conftest import fixed_key
from tests.embedding.test_publishing import KINDS, files
from tests.marked_model import with_mark
from tests.models import FEATURES, LAYER, UNITS, dense_model, mark, nested_model

pytestmark = pytest.mark.backends


def write_marks(model):
    """Writes all marks of a model into its weights, without training."""
    from keras_wm.embedding.marked_layers import find_marked_layers

    for marked in find_marked_layers(model):
        regularizer = marked.regularizer
        key = regularizer.key.in_slot(regularizer.slot)
        marked.variable.assign(with_mark(np.asarray(marked.variable), key, 1))
    return model


@pytest.fixture(scope="module")
def marked_model():
    """A model of one marked layer. Tests must not change it."""
    return write_marks(dense_model(mark(fixed_key(), slot=1)))


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_the_claim_describes_the_published_file(marked_model, tmp_path, suffix):
    path = publish(marked_model, tmp_path / f"a{suffix}", claim=tmp_path / "a.claim")
    claim = Claim.load(tmp_path / "a.claim")
    assert claim.model == ModelDigest.of(path)
    assert claim.layers == (ClaimedLayer(LAYER, 1, (FEATURES, UNITS)),)
    claim.check_key(fixed_key())
    assert not claim.jointly
    assert not claim.released
    assert files(tmp_path) == sorted([path.name, "a.claim"])


def test_several_layers_are_claimed_with_their_slots_as_one_test(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(32, kernel_regularizer=mark(slot=2), name="a"),
            layers.Reshape((4, 8)),
            layers.LSTM(16, kernel_regularizer=mark(slot=0), name="b"),
        ]
    )
    publish(write_marks(model), tmp_path / "a.keras", claim=tmp_path / "a.claim")
    claim = Claim.load(tmp_path / "a.claim")
    assert set(claim.layers) == {
        ClaimedLayer("a", 2, (16, 32)),
        ClaimedLayer("b/lstm_cell", 0, (8, 64)),
    }
    assert claim.jointly
    assert len(claim.slots) == 3
    for layer in claim.layers:
        key = fixed_key().in_slot(layer.slot)
        found = keras_wm.verify(tmp_path / "a.keras", key, layer=layer.name)
        assert found.marked
        assert found.layer.startswith(layer.name)


def test_a_layer_in_nested_models_is_claimed_by_its_full_name(tmp_path):
    model = write_marks(nested_model(mark()))
    publish(model, tmp_path / "a.keras", claim=tmp_path / "a.claim")
    (layer,) = Claim.load(tmp_path / "a.claim").layers
    assert layer.name == f"middle/inner/{LAYER}"
    assert keras_wm.verify(tmp_path / "a.keras", fixed_key(), layer=layer.name).marked


@pytest.mark.study
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_every_kind_can_be_claimed_in_every_file(kind, suffix, tmp_path):
    model = write_marks(KINDS[kind](mark()))
    path = publish(model, tmp_path / f"a{suffix}", claim=tmp_path / "a.claim")
    claim = Claim.load(tmp_path / "a.claim")
    assert claim.model.weights == keras_wm.claims.weight_digest(path)
    for layer in claim.layers:
        found = keras_wm.verify(path, fixed_key(), layer=layer.name)
        assert found.marked


def test_a_claim_names_checkpoint_recipients_and_predecessor(marked_model, tmp_path):
    dense_model().save(tmp_path / "before.keras")
    publish(marked_model, tmp_path / "1.keras", claim=tmp_path / "1.claim")
    first = Claim.load(tmp_path / "1.claim")
    publish(
        marked_model,
        tmp_path / "2.keras",
        claim=tmp_path / "2.claim",
        checkpoint=tmp_path / "before.keras",
        recipients=["customer-17", "customer-18", "customer-19"],
        predecessor=first,
    )
    second = Claim.load(tmp_path / "2.claim")
    assert second.checkpoint == ModelDigest.of(tmp_path / "before.keras")
    assert second.recipients.number == 3
    assert second.predecessor == first.digest


def test_the_checkpoint_is_another_model(marked_model, tmp_path):
    path = publish(marked_model, tmp_path / "a.weights.h5")
    with pytest.raises(ClaimError, match="before the mark"):
        publish(
            marked_model,
            tmp_path / "b.weights.h5",
            claim=tmp_path / "b.claim",
            checkpoint=path,
        )
    assert files(tmp_path) == ["a.weights.h5"]


def test_a_model_of_several_keys_needs_a_choice(tmp_path):
    other = fixed_key(secret=bytes(32))
    model = dense_model(mark(fixed_key()))
    attach(model, "logits", fixed_key(8, secret=bytes(32)))
    with pytest.raises(ClaimError, match=r"marks of one key.*key="):
        publish(model, tmp_path / "a.keras", claim=tmp_path / "a.claim")
    with pytest.raises(ClaimError, match="no marked layer has"):
        publish(model, tmp_path / "a.keras", claim=tmp_path / "a.claim", key=other)
    assert files(tmp_path) == []
    write_marks(model)
    publish(model, tmp_path / "a.keras", claim=tmp_path / "a.claim", key=fixed_key())
    assert [layer.name for layer in Claim.load(tmp_path / "a.claim").layers] == [LAYER]


def test_a_model_without_a_mark_has_nothing_to_claim(tmp_path):
    model = dense_model(mark())
    detach(model)
    with pytest.raises(ClaimError, match="marks of: none"):
        publish(model, tmp_path / "a.keras", claim=tmp_path / "a.claim")
    assert files(tmp_path) == []


def test_a_mark_that_is_not_trained_yet_is_not_claimed(tmp_path):
    with pytest.raises(ClaimError, match="carries the mark"):
        publish(dense_model(mark()), tmp_path / "a.keras", claim=tmp_path / "a.claim")
    assert files(tmp_path) == []


def test_a_model_that_was_loaded_without_its_key_needs_it(marked_model, tmp_path):
    marked_model.save(tmp_path / "checkpoint.keras")
    with keras_wm.keys():
        model = keras.saving.load_model(tmp_path / "checkpoint.keras")
    with pytest.raises(ClaimError, match="key is loaded"):
        publish(model, tmp_path / "a.keras", claim=tmp_path / "a.claim")
    publish(model, tmp_path / "a.keras", claim=tmp_path / "a.claim", key=fixed_key())
    assert Claim.load(tmp_path / "a.claim").layers[0].slot == 1


def test_an_existing_claim_is_kept_and_nothing_is_written(marked_model, tmp_path):
    (tmp_path / "a.claim").write_text("kept")
    with pytest.raises(FileExistsError, match="never overwritten"):
        publish(marked_model, tmp_path / "a.keras", claim=tmp_path / "a.claim")
    assert (tmp_path / "a.claim").read_text() == "kept"
    with pytest.raises(FileNotFoundError, match="no folder"):
        publish(marked_model, tmp_path / "a.keras", claim=tmp_path / "none" / "a.claim")
    assert files(tmp_path) == ["a.claim"]


def test_if_the_model_cannot_be_moved_there_is_no_claim_either(
    marked_model, tmp_path, monkeypatch
):
    def fail(self, target):
        raise OSError("read-only")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="read-only"):
            publish(marked_model, tmp_path / "a.keras", claim=tmp_path / "a.claim")
    assert files(tmp_path) == []


def test_facts_of_a_claim_need_a_claim(marked_model, tmp_path):
    with pytest.raises(ValueError, match="claim=PATH with recipients="):
        publish(marked_model, tmp_path / "a.keras", recipients=["customer-17"])
