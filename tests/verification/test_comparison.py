"""compare: the order of two marks."""

import json
from datetime import timedelta

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm.claims import Claim
from tests.claims.authority import Authority
from tests.command_line import run
from tests.conftest import fixed_key
from tests.marked_model import with_mark
from tests.verification.test_claimed import NOW, TOMORROW, stamped

ALICE = fixed_key(64, owner="Alice")
BOB = fixed_key(64, owner="Bob", secret=b"\x07" * 32)
LAYER = "marked"


def network(seed):
    """A network of three convolutions."""
    rng = np.random.default_rng(seed)
    layers = [
        keras.layers.Conv2D(16, 3, activation="relu", name="first"),
        keras.layers.Conv2D(24, 3, activation="relu", name=LAYER),
        keras.layers.Conv2D(12, 3, name="last"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    for layer in layers:
        layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    return model


def copy_with_marks(model, *keys):
    """Returns a copy with the marks of some keys, one after the other."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kernel = copy.get_layer(LAYER).kernel
    for key in keys:
        kernel.assign(with_mark(np.asarray(kernel, np.float64), key, 0.5))
    return copy


@pytest.fixture(scope="module")
def models():
    """Models without a mark, with one mark and with both, and an unrelated model."""
    plain = network(8)
    return {
        "plain": plain,
        "alice": copy_with_marks(plain, ALICE),
        "bob": copy_with_marks(plain, BOB),
        "both": copy_with_marks(plain, ALICE, BOB),
        "unrelated": copy_with_marks(network(9), BOB),
    }


def comparison(models, disputed, alices, bobs):
    parties = [
        keras_wm.Party(ALICE, models[alices]),
        keras_wm.Party(BOB, models[bobs]),
    ]
    found = keras_wm.compare(models[disputed], parties)
    reverse = keras_wm.compare(models[disputed], parties[::-1])
    # The order of the parties does not matter.
    assert (reverse.first, reverse.reason) == (found.first, found.reason) or (
        found.first is None is reverse.first
    )
    return found


def test_the_party_with_a_model_without_the_others_mark_was_first(models):
    found = comparison(models, "both", "alice", "both")
    assert found.first == "Alice"
    assert "Bob began with a model that Alice had marked" in repr(found)


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (("both", "both", "both"), "Each party's own model has the other's mark"),
        (("both", "alice", "bob"), "they cannot both be"),
        (("alice", "alice", "both"), "Bob's mark is not in the disputed model"),
        (("both", "plain", "both"), "Alice's mark is not in Alice's own model"),
    ],
)
def test_otherwise_the_order_is_not_shown_and_the_report_says_why(
    models, shown, reason
):
    found = comparison(models, *shown)
    assert found.first is None
    assert reason in found.reason
    assert "NOT SHOWN" in repr(found)


def test_an_unrelated_original_is_refused(models):
    """A thief's unrelated network lacks the owner's mark, like any other network."""
    alices = models["both"]  # Alice has lost the model from before the theft.
    models = {**models, "alice": alices}
    found = comparison(models, "both", "alice", "unrelated")
    assert found.first is None
    assert "Bob's own model is not related to the disputed model" in found.reason
    own, unrelated = found.related
    assert own.figure > 0.9
    # The largest of 2 kernels is 5 standard deviations of its chance cosine.
    assert abs(unrelated.figure) < 5 / np.sqrt(3 * 3 * 3 * 16)
    report = json.loads(json.dumps(found.to_dict()))
    assert report["relatedness"][0]["figure"] == own.figure


def test_a_key_given_as_arrays_is_refused(models):
    mean_filter = np.asarray(models["alice"].get_layer(LAYER).kernel).mean(axis=-1)
    message = np.resize([1, 0], 64)
    forged = keras_wm.WatermarkKey.from_arrays(
        np.outer(2.0 * message - 1, mean_filter.ravel()), message
    )
    parties = [
        keras_wm.Party(ALICE, models["alice"]),
        keras_wm.Party(forged, models["alice"]),
    ]
    found = keras_wm.compare(models["alice"], parties)
    assert found.first is None
    assert "is not evidence" in found.reason
    assert "private" in found.reason


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tsa") / "a", "First")


def dated(key, model, authority, days_ago):
    claim = Claim.make(model, key, {LAYER: 0})
    return stamped(claim, authority, NOW - timedelta(days=days_ago))


def test_the_earlier_of_two_claims_decides(models, authority):
    alices = dated(ALICE, models["alice"], authority, 20)
    bobs = dated(BOB, models["both"], authority, 10)
    parties = [
        keras_wm.Party(ALICE, models["alice"], alices),
        keras_wm.Party(BOB, models["both"], bobs),
    ]
    dates = {"published": TOMORROW, "tsa_certificates": authority.roots}
    found = keras_wm.compare(models["both"], parties, **dates)
    assert found.first == "Alice"
    assert f"{NOW - timedelta(days=20):%Y-%m-%d}" in found.reason
    # Without a root that the verifier trusts the claims are not dated.
    found = keras_wm.compare(models["both"], parties, published=TOMORROW)
    assert found.dates == (None, None)
    assert found.first == "Alice"
    assert "Bob began" in found.reason


def test_an_early_claim_for_an_unrelated_model_is_refused(models, authority):
    parties = [
        keras_wm.Party(
            ALICE, models["alice"], dated(ALICE, models["alice"], authority, 10)
        ),
        keras_wm.Party(
            BOB, models["unrelated"], dated(BOB, models["unrelated"], authority, 20)
        ),
    ]
    dates = {"published": TOMORROW, "tsa_certificates": authority.roots}
    found = keras_wm.compare(models["both"], parties, **dates)
    assert found.first is None
    assert "not related" in found.reason


def test_a_claim_for_another_model_dates_nothing(models, authority):
    parties = [
        keras_wm.Party(
            ALICE, models["alice"], dated(ALICE, models["alice"], authority, 10)
        ),
        # Bob's claim is for another model than the one that he shows.
        keras_wm.Party(BOB, models["both"], dated(BOB, models["bob"], authority, 20)),
    ]
    dates = {"published": TOMORROW, "tsa_certificates": authority.roots}
    found = keras_wm.compare(models["both"], parties, **dates)
    assert found.dates[1] is None
    assert found.first == "Alice"


def test_parties_with_the_same_name_are_distinguished(models):
    twin = fixed_key(64, owner="Alice", secret=b"\x07" * 32)
    both = copy_with_marks(models["alice"], twin)
    parties = [keras_wm.Party(ALICE, models["alice"]), keras_wm.Party(twin, both)]
    found = keras_wm.compare(both, parties)
    assert found.first == f"Alice ({ALICE.commitment[:8]})"


def test_other_than_two_different_keys_are_refused(models):
    party = keras_wm.Party(ALICE, models["alice"])
    with pytest.raises(ValueError, match="Received: 1"):
        keras_wm.compare(models["both"], [party])
    with pytest.raises(ValueError, match="two keys"):
        keras_wm.compare(models["both"], [party, party])
    with pytest.raises(ValueError, match="together with a claim"):
        other = keras_wm.Party(BOB, models["both"])
        keras_wm.compare(models["both"], [party, other], published="2026-01-01")


def test_the_command_line_compares(models, authority, tmp_path):
    ALICE.save(tmp_path / "alice.key")
    BOB.save(tmp_path / "bob.key")
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    keys = ("--key", tmp_path / "alice.key", "--key", tmp_path / "bob.key")

    def compared(disputed, alices, bobs, *options):
        originals = [
            part
            for name in (alices, bobs)
            for part in ("--original", tmp_path / f"{name}.keras")
        ]
        file = tmp_path / f"{disputed}.keras"
        return run("compare", file, "--no-sandbox", *keys, *originals, *options)

    shown = compared("both", "alice", "both")
    assert shown.returncode == 0
    assert "first  Alice" in shown.stdout
    report = json.loads(compared("both", "both", "both", "--json").stdout)
    assert report["first"] is None
    assert compared("both", "both", "both").returncode == 1
    result = run("compare", tmp_path / "both.keras", *keys, "--original", "x.keras")
    assert result.returncode == 64
    claims = []
    for days, (name, key) in enumerate((("alice", ALICE), ("both", BOB))):
        path = tmp_path / f"{name}.claim"
        dated(key, models[name], authority, 9 - days).save(path)
        claims += ["--claim", path]
    options = ("--published", f"{TOMORROW + timedelta(days=1):%F}")
    options += ("--tsa-certificates", authority.roots)
    dates = compared("both", "alice", "both", *claims, *options)
    assert dates.returncode == 0
    assert "Alice's claim is dated" in dates.stdout
    one = compared("both", "alice", "both", *claims[:2], *options)
    assert one.returncode == 64
    assert "no claim" in one.stderr
