"""Findings that rest on a claim: when it counts, and when it does not."""

import json
from datetime import UTC, datetime, timedelta

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm.claims import Claim, open_claimed_slot
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey
from tests.claims.authority import Authority
from tests.claims.test_stamps import stamped_at
from tests.command_line import run
from tests.conftest import fixed_key
from tests.marked_model import with_mark

KEY = fixed_key(64)
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
TOMORROW = NOW + DAY
BEFORE = NOW - timedelta(days=40)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tsa") / "a", "First")


def stamped(claim, authority, time=NOW):
    """Returns a claim with a stamp of a time."""
    return stamped_at(claim, authority, time)


def network(seed=4):
    rng = np.random.default_rng(seed)
    layers = [
        keras.layers.Dense(60, "relu", name="first"),
        keras.layers.Dense(40, "relu", name="second"),
        keras.layers.Dense(30, name="third"),
    ]
    model = keras.Sequential([keras.Input((50,)), *layers])
    for layer in layers:
        layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    return model


def copy_of(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def permuted(model, seed=1):
    """Returns a copy whose channels between the layers have another order."""
    copy = copy_of(model)
    order = np.random.default_rng(seed).permutation(60)
    first, second = copy.layers[:2]
    for array in (first.kernel, first.bias):
        array.assign(np.asarray(array)[..., order])
    second.kernel.assign(np.asarray(second.kernel)[order])
    return copy


@pytest.fixture(scope="module")
def owners():
    model = network()
    kernel = model.get_layer("second").kernel
    kernel.assign(with_mark(np.asarray(kernel), KEY.in_slot(1), 0.9))
    return model


@pytest.fixture(scope="module")
def claim(owners, authority):
    return stamped(Claim.make(owners, KEY, {"second": 1}), authority)


@pytest.fixture
def dates(claim, authority):
    return {
        "claim": claim,
        "published": TOMORROW,
        "tsa_certificates": authority.roots,
    }


def attempts(found):
    return {attempt.name: attempt for attempt in found.attempts}


def test_a_claimed_layer_is_one_test(owners, dates):
    found = keras_wm.verify(owners, KEY, slots=2, **dates)
    result = attempts(found)["claimed layers"]
    kernel = np.asarray(owners.get_layer("second").kernel)
    alone = detect(kernel, KEY.in_slot(1)).log10_p
    assert result.detection.log10_p == pytest.approx(alone)
    # One kernel in one slot. Each of the three attempts could have been claimed: this
    # one, all kernels one by one, and the kernels of both slots together.
    assert result.counted == 3
    assert result.standing == "claimed"
    # Nothing had to be chosen for a p-value below 2**-64 in all kernels and slots.
    assert (found.standing, found.verdict) == ("independent", "proven")


def test_a_weak_mark_is_evidence_with_a_dated_claim_only(authority):
    model = network()
    kernel = model.get_layer("second").kernel
    plain = np.asarray(kernel)
    kernels = [
        with_mark(plain, KEY, strength) for strength in np.arange(0.1, 0.6, 0.02)
    ]
    weak = next(array for array in kernels if -15 < detect(array, KEY).log10_p < -11)
    kernel.assign(weak)
    found = keras_wm.verify(model, KEY)
    assert (found.verdict, found.standing) == ("marked", "independent")
    assert not found.meets("claimed")
    claim = stamped(Claim.make(model, KEY, {"second": 0}), authority)
    dated = keras_wm.verify(
        model, KEY, claim=claim, published=TOMORROW, tsa_certificates=authority.roots
    )
    assert (dated.verdict, dated.standing) == ("marked", "claimed")
    assert dated.meets("claimed")
    assert not dated.meets("independent")


def test_a_reference_that_the_claim_names_is_claimed(owners, dates, claim):
    suspect = permuted(owners)
    private = keras_wm.verify(suspect, KEY, slots=2, reference=owners)
    assert (private.verdict, private.standing) == ("proven", "private")
    found = keras_wm.verify(suspect, KEY, slots=2, reference=owners, **dates)
    assert (found.verdict, found.standing) == ("proven", "claimed")
    assert "PROVEN, claimed" in repr(found).splitlines()[0]
    assert claim.digest in repr(found)
    assert "CN=First TSA" in repr(found)
    assert found.meets("claimed")
    assert not found.meets("independent")
    report = json.loads(json.dumps(found.to_dict()))
    assert report["standing"] == "claimed"
    assert report["claim"]["digest"] == claim.digest
    assert report["claim"]["fixed"] == ["arrays", "reference", "seed"]
    # The claim does not name this reference.
    other = copy_of(owners)
    bias = other.get_layer("third").bias
    bias.assign(np.asarray(bias) + 1e-3)
    found = keras_wm.verify(suspect, KEY, slots=2, reference=other, **dates)
    assert (found.verdict, found.standing) == ("proven", "private")


def test_a_checkpoint_that_the_claim_names_is_claimed(owners, authority):
    before = network()
    claim = Claim.make(owners, KEY, {"second": 1}, checkpoint=before)
    claim = stamped(claim, authority)
    suspect = permuted(owners)
    dates = {"published": TOMORROW, "tsa_certificates": authority.roots}
    found = keras_wm.verify(
        suspect, KEY, slots=2, checkpoint=before, claim=claim, **dates
    )
    assert (found.verdict, found.standing) == ("proven", "claimed")
    found = keras_wm.verify(suspect, KEY, slots=2, checkpoint=before)
    assert (found.verdict, found.standing) == ("proven", "private")


def explain(found):
    return dict(found.rows())["claim"]


def test_a_claim_does_not_count_without_an_earlier_trusted_date(
    owners, claim, dates, authority, tmp_path
):
    suspect = permuted(owners)
    stranger = Authority(tmp_path / "b", "Stranger")
    unstamped = Claim.make(owners, KEY, {"second": 1})
    others = Claim.make(owners, fixed_key(64, secret=b"\x07" * 32), {"second": 1})
    for changed, reason in (
        ({"published": NOW - timedelta(days=1)}, "the model appeared on"),
        ({"published": NOW.date()}, "the model appeared on"),
        ({"published": None}, "day on which the model appeared was not passed"),
        ({"tsa_certificates": None}, "no root certificate"),
        ({"tsa_certificates": stranger.roots}, "not dated"),
        ({"claim": unstamped}, "no time stamp"),
        ({"claim": stamped(others, authority)}, "another key"),
    ):
        found = keras_wm.verify(
            suspect, KEY, slots=2, reference=owners, **dates | changed
        )
        assert found.marked
        assert found.standing == "private"
        assert reason in explain(found)
        assert "does not count" in explain(found)


def test_a_claim_does_not_count_if_a_public_ancestor_has_the_mark(owners, dates):
    # The forger's claim: a public network, permuted into the order that his key likes.
    suspect, ancestor = permuted(owners), permuted(owners, seed=2)
    innocent = network(seed=9)
    found = keras_wm.verify(
        suspect, KEY, slots=2, reference=owners, controls=[innocent, ancestor], **dates
    )
    assert (found.verdict, found.standing) == ("proven", "private")
    assert "the mark was also found in" in explain(found)
    assert ancestor.name in explain(found)
    found = keras_wm.verify(
        suspect, KEY, slots=2, reference=owners, controls=[innocent], **dates
    )
    assert found.standing == "claimed"
    assert "1 control" in explain(found)


def test_certificates_that_cannot_be_read_are_the_verifiers_mistake(
    owners, dates, tmp_path
):
    wrong = dates | {"tsa_certificates": tmp_path / "none.pem"}
    with pytest.raises(keras_wm.ClaimError, match=r"in PEM.*none\.pem"):
        keras_wm.verify(owners, KEY, **wrong)


def test_an_opened_slot_is_evidence_with_its_claim_only(owners, dates):
    opened = KEY.open_slot(1)
    found = keras_wm.verify(owners, opened)
    assert (found.verdict, found.standing) == ("proven", "private")
    assert "can be chosen freely" in repr(found).splitlines()[0]
    assert "proves nothing by itself" in repr(found)
    found = keras_wm.verify(owners, opened, **dates)
    assert (found.verdict, found.standing) == ("proven", "claimed")
    assert "proves nothing by itself" not in repr(found)
    others = fixed_key(64, secret=b"\x07" * 32).open_slot(1)
    forged = WatermarkKey.from_payload(
        {**others.payload(), "commitment": KEY.commitment}
    )
    found = keras_wm.verify(owners, forged, **dates)
    assert "another seed for slot 1" in explain(found)


def test_an_opened_slot_of_a_recipient_counts_all_recipients(owners, authority):
    names = ["a", "b", "c"]
    copy = copy_of(owners)
    kernel = copy.get_layer("second").kernel
    recipient = KEY.for_recipient("b").in_slot(1)
    kernel.assign(with_mark(np.asarray(kernel), recipient, 0.9))
    claim = Claim.make(owners, KEY, {"second": 1}, recipients=names)
    opened = open_claimed_slot(claim, KEY, 1, "b", names)
    dates = {"published": TOMORROW, "tsa_certificates": authority.roots}
    found = keras_wm.verify(copy, opened, claim=stamped(claim, authority), **dates)
    assert (found.marked, found.standing) == (True, "claimed")
    # One claimed layer, two attempts, and three recipients who could have been chosen.
    assert attempts(found)["claimed layers"].counted == 2 * 3
    without = KEY.for_recipient("b").open_slot(1)
    found = keras_wm.verify(copy, without, claim=stamped(claim, authority), **dates)
    assert found.standing == "private"


def test_arguments_for_a_claim_need_a_claim(owners, authority):
    for arguments in (
        {"published": "2026-01-01"},
        {"controls": [owners]},
        {"tsa_certificates": authority.roots},
    ):
        with pytest.raises(ValueError, match="together with a claim"):
            keras_wm.verify(owners, KEY, **arguments)


@pytest.mark.parametrize("day", ["soon", 3, "2026-13-01"])
def test_another_value_than_a_day_is_refused(owners, dates, day):
    with pytest.raises(ValueError, match="published="):
        keras_wm.verify(owners, KEY, **dates | {"published": day})


def test_layers_without_names_are_found_by_their_shapes(owners, dates, tmp_path):
    from safetensors.numpy import save_file

    arrays = {
        f"tensor_{number}": np.ascontiguousarray(array)
        for number, array in enumerate(owners.get_weights())
    }
    save_file(arrays, tmp_path / "a.safetensors")
    found = keras_wm.verify(tmp_path / "a.safetensors", KEY, slots=2, **dates)
    result = attempts(found)["claimed layers"]
    assert result.log10_p < -30
    assert result.kernels[0].shape == (60, 40)


def test_several_layers_are_read_as_the_claim_says(authority):
    model = network()
    for slot, name in enumerate(("second", "third")):
        kernel = model.get_layer(name).kernel
        kernel.assign(with_mark(np.asarray(kernel), KEY.in_slot(slot), 0.3))
    slots = {"second": 0, "third": 1}
    dates = {"published": TOMORROW, "tsa_certificates": authority.roots}
    claims = [
        stamped(Claim.make(model, KEY, slots, jointly=jointly), authority)
        for jointly in (False, True)
    ]
    alone, jointly = (
        attempts(keras_wm.verify(model, KEY, claim=claim, **dates))["claimed layers"]
        for claim in claims
    )
    listed = keras_wm.verify(model, KEY, list(slots), slots=2)
    joint = attempts(listed)["jointly"]
    assert jointly.detection.log10_p == pytest.approx(joint.detection.log10_p)
    assert jointly.log10_p < alone.log10_p
    # Nothing is left to choose, where the list of layers is one of many.
    assert (jointly.counted, alone.counted) == (2, 4)


def test_an_explicit_key_is_evidence_only_with_a_dated_claim(owners, authority):
    kernel = np.asarray(owners.get_layer("second").kernel)
    message = np.resize([1, 0], 64)
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(64, 60))
    matrix[(matrix @ kernel.mean(axis=-1) > 0) != message] *= -1
    key = WatermarkKey.from_arrays(matrix, message)
    dates = {"tsa_certificates": authority.roots}
    claim = stamped(Claim.make(owners, key, {"second": 0}), authority, BEFORE)
    found = keras_wm.verify(owners, key, claim=claim, published=NOW, **dates)
    assert (found.marked, found.standing) == (True, "claimed")
    # The key was solved for a model that was public already.
    earlier = BEFORE - timedelta(days=1)
    found = keras_wm.verify(owners, key, claim=claim, published=earlier, **dates)
    assert (found.marked, found.standing) == (True, "private")


def test_recipients_are_claimed_if_the_claim_lists_exactly_them(owners, authority):
    names = ["a", "b", "c"]
    copy = copy_of(owners)
    kernel = copy.get_layer("second").kernel
    kernel.assign(with_mark(np.asarray(kernel), KEY.for_recipient("b"), 0.9))
    claim = Claim.make(owners, KEY, {"second": 1}, recipients=names)
    dates = {
        "claim": stamped(claim, authority),
        "published": TOMORROW,
        "tsa_certificates": authority.roots,
    }
    assert keras_wm.identify(copy, KEY, names).standing == "private"
    found = keras_wm.identify(copy, KEY, names[::-1], controls=[owners], **dates)
    assert [trace.recipient for trace in found.named] == ["b"]
    assert found.standing == "claimed"
    assert found.meets("claimed")
    # A part of the list leaves out tests that were possible.
    found = keras_wm.identify(copy, KEY, ["b"], **dates)
    assert found.standing == "private"
    assert "Expected the 3 recipients" in explain(found)
    found = keras_wm.identify(copy, KEY, names, controls=[copy], **dates)
    assert found.standing == "private"
    alone = keras_wm.verify(copy, KEY.for_recipient("b"), **dates)
    assert (alone.marked, alone.standing) == (True, "private")


def test_the_command_line_takes_a_claim(owners, claim, authority, tmp_path):
    KEY.save(tmp_path / "owner.key")
    claim.save(tmp_path / "model.claim")
    owners.save(tmp_path / "owners.keras")
    permuted(owners).save(tmp_path / "suspect.keras")
    network(seed=9).save(tmp_path / "innocent.keras")
    arguments = ["verify", tmp_path / "suspect.keras", "--key", tmp_path / "owner.key"]
    arguments += ["--slots", "2", "--reference", tmp_path / "owners.keras"]
    assert run(*arguments, "--require", "claimed").returncode == 1
    arguments += [
        "--claim",
        tmp_path / "model.claim",
        "--published",
        f"{TOMORROW + DAY:%F}",
    ]
    arguments += ["--tsa-certificates", authority.roots]
    arguments += ["--control", tmp_path / "innocent.keras", "--require", "claimed"]
    found = run(*arguments)
    assert found.returncode == 0, found.stdout
    assert "PROVEN, claimed" in found.stdout
    assert run(*arguments, "--require", "independent").returncode == 1
