"""Claim: its digest, its file, and what it is made for."""

import base64
import hashlib
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import keras_wm
from keras_wm import Claim, ClaimError, LayerNotFoundError, WatermarkKey
from keras_wm.claims import ClaimedLayer, ModelDigest, RecipientsRoot, Stamp
from tests.conftest import fixed_key
from tests.files.written import write_weights
from tests.marked_model import with_mark


def field(value):
    return struct.pack(">Q", len(value)) + value


def digest_of_file(path):
    """Returns the digest of a claim file, as docs/claim.md specifies it."""
    facts = json.loads(path.read_text("utf-8"))["claim"]
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    content = field(b"keras_wm claim 1") + field(text.encode("ascii"))
    return hashlib.sha256(content).hexdigest()


def full_claim(claim):
    """Returns a claim that has every field."""
    return replace(
        claim,
        owner="Ünïcode & Söhne",
        layers=(ClaimedLayer("a/b", 0, (3, 3, 8, 16)), ClaimedLayer("c", 1, (9, 5))),
        jointly=True,
        checkpoint=ModelDigest("ab" * 32, "cd" * 32),
        recipients=RecipientsRoot("ef" * 32, 1000),
        predecessor="01" * 32,
        released=True,
        stamps=(Stamp(b"first"), Stamp(b"second", renewal=True)),
    )


def test_a_claim_survives_its_file(claim, tmp_path):
    for number, original in enumerate((claim, full_claim(claim))):
        path = original.save(tmp_path / f"{number}.claim")
        assert Claim.load(path) == original
        assert Claim.load(path).digest == original.digest


def test_the_digest_follows_the_specification(claim, tmp_path):
    path = full_claim(claim).save(tmp_path / "a.claim")
    assert full_claim(claim).digest == digest_of_file(path)


def test_stamps_are_not_a_part_of_the_digest_and_everything_else_is(claim):
    full = full_claim(claim)
    assert full.with_stamp(Stamp(b"third")).digest == full.digest
    changes = {
        "commitment": "00" * 32,
        "owner": "Somebody else",
        "bits": 33,
        "projection": "direct",
        "filters": "mean",
        "slots": (*full.slots, "00" * 32),
        "layers": full.layers[::-1],
        "jointly": False,
        "model": ModelDigest(full.model.weights, "00" * 32),
        "nonce": "00" * 32,
        "checkpoint": None,
        "recipients": RecipientsRoot("ef" * 32, 1001),
        "predecessor": None,
        "released": False,
    }
    assert {*changes, "stamps"} == set(Claim.__dataclass_fields__)
    digests = {replace(full, **{name: new}).digest for name, new in changes.items()}
    assert len(digests | {full.digest}) == len(changes) + 1


def test_a_claim_holds_what_the_model_and_the_key_say(claim, model_file):
    key = fixed_key()
    assert claim.commitment == key.commitment
    assert (claim.owner, claim.bits) == ("Example Ltd", 32)
    assert claim.slots == (key.slot_commitment(0), key.slot_commitment(1))
    assert claim.layers == (ClaimedLayer("c1", 1, (12, 8)),)
    assert claim.model == ModelDigest.of(model_file)
    assert not claim.released
    assert claim.digest != Claim.make(model_file, key, {"c1": 1}).digest


def test_a_claim_holds_the_anchor_that_a_slot_had(model_file, tmp_path):
    """Whoever may choose an anchor after the claim can choose one that fits."""
    key = fixed_key()
    early, late = (keras_wm.Anchor([gain], np.eye(12)[:, :1]) for gain in (1.0, 2.0))
    anchored = key.in_slot(1).with_anchor(early)
    made = Claim.make(model_file, anchored, {"c1": 1}, recipients=["customer-17"])
    made.check_key(anchored)
    made.check_key(anchored.open_slot(1))
    made.check_key(anchored.open_slot(0))
    made.check_recipients(anchored, ["customer-17"])
    for changed in (key, key.in_slot(1).with_anchor(late)):
        with pytest.raises(ClaimError, match="another seed for slot 1"):
            made.check_key(changed)
        with pytest.raises(ClaimError, match="not the same ones"):
            made.check_recipients(changed, ["customer-17"])
    with pytest.raises(ClaimError, match="another seed for slot 0"):
        made.check_key(anchored.in_slot(0).with_anchor(late))


def test_a_claim_can_name_everything_else(claim, model_file, tmp_path):
    before = write_weights(tmp_path / "before.weights.h5")
    made = Claim.make(
        model_file,
        fixed_key(),
        {"c1": 0},
        checkpoint=before,
        recipients=["customer-17", "customer-18"],
        predecessor=claim,
        released=True,
    )
    assert made.checkpoint == ModelDigest.of(before)
    assert made.recipients.number == 2
    assert made.predecessor == claim.digest
    assert made.released


def test_a_claim_file_does_not_contain_a_secret(claim, tmp_path):
    content = claim.save(tmp_path / "a.claim").read_text("utf-8")
    source = fixed_key()._source
    secrets = [source.secret, source._root, *map(source._streams.seed, range(2))]
    for secret in secrets:
        assert secret.reveal() not in content


def test_a_claim_is_not_overwritten_silently(claim, tmp_path):
    path = claim.save(tmp_path / "a.claim")
    with pytest.raises(FileExistsError, match="not overwritten"):
        full_claim(claim).save(path)
    assert Claim.load(path) == claim
    full_claim(claim).save(path, overwrite=True)
    assert Claim.load(path) == full_claim(claim)


def test_a_claim_belongs_to_its_key(claim):
    claim.check_key(fixed_key())
    claim.check_key(fixed_key().in_slot(5))
    others = [fixed_key(33), fixed_key(owner="Thief"), fixed_key(secret=bytes(32))]
    for key in others:
        with pytest.raises(ClaimError, match="another key"):
            claim.check_key(key)
    with pytest.raises(ClaimError, match="another seed for slot 1"):
        replace(claim, slots=(claim.slots[0], "00" * 32)).check_key(fixed_key())
    with pytest.raises(TypeError, match="WatermarkKey"):
        claim.check_key("key")


def test_an_explicit_key_can_be_claimed(model_file, tmp_path):
    rows = np.random.default_rng(1).normal(size=(8, 12))
    key = WatermarkKey.from_arrays(rows, np.ones(8, int))
    claim = Claim.make(model_file, key, {"c1": 0})
    assert claim.slots == ()
    loaded = Claim.load(claim.save(tmp_path / "a.claim"))
    loaded.check_key(key)
    with pytest.raises(ClaimError, match="another key"):
        loaded.check_key(WatermarkKey.from_arrays(rows, np.zeros(8, int)))


def test_a_claim_is_made_with_the_owners_own_certified_key(model_file):
    with pytest.raises(ClaimError, match="recipients="):
        Claim.make(model_file, fixed_key().for_recipient("customer-17"), {"c1": 0})
    with pytest.raises(ClaimError, match="research only"):
        Claim.make(model_file, fixed_key(groups=3), {"c1": 0})


def test_layers_are_looked_up_in_the_file(model_file):
    with pytest.raises(LayerNotFoundError, match="'c2'"):
        Claim.make(model_file, fixed_key(), {"c2": 0})
    with pytest.raises(ClaimError, match="can hold 2000 bits"):
        Claim.make(model_file, fixed_key(2000), {"c1": 0})
    with pytest.raises(ClaimError, match="at least one layer"):
        Claim.make(model_file, fixed_key(), {})


def test_the_order_of_axes_is_the_one_that_is_marked(tmp_path):
    kernel = np.random.default_rng(1).normal(size=(30, 20)).astype("float32")
    marked = with_mark(kernel, fixed_key().in_slot(2), 1).astype("float32")
    for values in (marked, marked.T.copy()):
        save_file({"c1.weight": values}, tmp_path / "a.safetensors")
        made = Claim.make(tmp_path / "a.safetensors", fixed_key(), {"c1": 2})
        assert made.layers == (ClaimedLayer("c1", 2, (30, 20)),)


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(ClaimError, match=r"Cannot read the claim .*none\.claim"):
        Claim.load(tmp_path / "none.claim")


def altered(claim, tmp_path, change):
    """Returns the path of a claim file that a function has changed."""
    path = tmp_path / "altered.claim"
    content = json.loads(claim.save(path, overwrite=True).read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")
    return path


BAD_FACTS = [
    ("nonce", 3, "nonce=3"),
    ("nonce", "AB" * 32, "lower case"),
    ("jointly", 1, "true or false"),
    ("released", None, "true or false"),
    ("predecessor", "x", "64 hexadecimal"),
    ("slots", {}, "a list"),
    ("slots", [["00" * 32]], "a str"),
    ("slots", [], "a digest of each slot"),
    ("slots", ["00" * 32] * 70_000, "at most 65536"),
    ("layers", [], "at least one layer"),
    ("layers", [{"name": "a"}], "an object of name, slot, shape"),
    ("layers", [{"name": "a", "slot": 0, "shape": [2, 2]}] * 2, "each once"),
    ("layers", [{"name": "", "slot": 0, "shape": [2, 2]}], "text of 1"),
    ("layers", [{"name": "\ud800", "slot": 0, "shape": [2, 2]}], "text of 1"),
    ("layers", [{"name": "a", "slot": 2, "shape": [2, 2]}], "a slot below 2"),
    ("layers", [{"name": "a", "slot": -1, "shape": [2, 2]}], "from 0"),
    ("layers", [{"name": "a", "slot": 0.0, "shape": [2, 2]}], "an integer"),
    ("layers", [{"name": "a", "slot": 0, "shape": [2]}], "two axes"),
    ("layers", [{"name": "a", "slot": 0, "shape": [2, True]}], "an integer"),
    ("layers", [{"name": "a", "slot": 0, "shape": [2, float("nan")]}], "a int"),
    ("layers", [{"name": "a", "slot": 0, "shape": [2, 0]}], "from 1"),
    ("layers", [{"name": "a", "slot": 0, "shape": [2, 10**30]}], "from 1"),
    ("layers", [{"name": "a", "slot": 0, "shape": [2] * 9}], "at most 8"),
    ("model", None, "an object of weights, file"),
    ("model", {"weights": "00" * 32}, "an object of weights, file"),
    ("checkpoint", {"weights": 3, "file": None}, "64 hexadecimal"),
    ("recipients", {"root": "00" * 32, "number": 0}, "from 1"),
    ("key", {}, "an object of commitment"),
    ("extra", 1, "an object of key, slots"),
]


@pytest.mark.parametrize(("name", "value", "complaint"), BAD_FACTS)
def test_a_fact_of_another_kind_is_refused(claim, tmp_path, name, value, complaint):
    path = altered(claim, tmp_path, lambda file: file["claim"].update({name: value}))
    with pytest.raises(ClaimError, match=complaint) as error:
        Claim.load(path)
    assert "altered.claim" in str(error.value)
    assert len(str(error.value)) < 700


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("owner", " "),
        ("owner", "U\u0308"),
        ("owner", "a\nb"),
        ("owner", "\x1b[2J"),
        ("owner", "a" * 1001),
        ("bits", 0),
        ("bits", "64"),
        ("projection", ["random"]),
        ("projection", "explicit"),
        ("filters", "other"),
    ],
)
def test_a_fact_of_the_key_of_another_kind_is_refused(claim, tmp_path, name, value):
    change = {name: value}
    path = altered(claim, tmp_path, lambda file: file["claim"]["key"].update(change))
    with pytest.raises(ClaimError, match="Expected"):
        Claim.load(path)


@pytest.mark.parametrize(
    "stamps",
    [
        None,
        [3],
        [{"response": "AA=="}],
        [{"response": "?", "renewal": False}],
        [{"response": 3, "renewal": False}],
        [{"response": "", "renewal": False}],
        [{"response": "AA==", "renewal": True}],
        [{"response": "AA==", "renewal": 0}],
        [{"response": base64.b64encode(bytes(70_000)).decode(), "renewal": False}],
        [{"response": "AA==", "renewal": False}] * 65,
    ],
)
def test_stamps_of_another_kind_are_refused(claim, tmp_path, stamps):
    path = altered(claim, tmp_path, lambda file: file.update(stamps=stamps))
    with pytest.raises(ClaimError, match="Expected"):
        Claim.load(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "should be JSON"),
        (b"[]", "another kind"),
        (b'{"format": "keras_wm key"}', "another kind"),
        (b'{"format": "keras_wm claim", "version": 2}', "version 2"),
        (b'{"format": "keras_wm claim", "version": 1}', "an object of format"),
        (b'{"format": "keras_wm claim", "format": "keras_wm claim"}', "duplicate key"),
        (b"[" * 100_000, "should be JSON"),
        (b" " * (8 * 2**20 + 1), "larger than"),
        (b"\xff\xfe", "should be JSON"),
    ],
)
def test_another_file_is_refused(tmp_path, content, complaint):
    (tmp_path / "a.claim").write_bytes(content)
    with pytest.raises(ClaimError, match=complaint):
        Claim.load(tmp_path / "a.claim")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def places_in(value, path=()):
    """Yields the path of every value in JSON."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from places_in(value[name], (*path, name))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from places_in(value[index], (*path, index))


@pytest.fixture(scope="module")
def written(claim, tmp_path_factory):
    """The file of a claim that has every field, and its text."""
    path = full_claim(claim).save(tmp_path_factory.mktemp("claims") / "a.claim")
    return path, path.read_text("utf-8")


@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data())
def test_a_hostile_claim_is_refused_or_valid(written, data):
    path, text = written
    content = json.loads(text)
    place = data.draw(st.sampled_from([*places_in(content)][1:]))
    holder = content
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = data.draw(JSON)
    path.write_text(json.dumps(content), "utf-8")
    try:
        loaded = Claim.load(path)
    except ClaimError as error:
        assert len(str(error)) < 1500
    else:
        assert loaded.digest == digest_of_file(path)


def test_the_class_is_public():
    assert keras_wm.Claim is Claim
    assert issubclass(keras_wm.ClaimError, ValueError)


def test_a_claim_of_a_changed_model_has_another_digest(claim, model_file, tmp_path):
    other = write_weights(tmp_path / "b.weights.h5", np.ones((12, 8), "float32"))
    assert Claim.make(other, fixed_key(), {"c1": 1}).model != claim.model
