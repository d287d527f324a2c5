"""The list of recipients: its root, proofs of membership, and opened slots."""

import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm import Claim, ClaimError
from keras_wm.claims import RecipientsRoot
from keras_wm.claims.opening import open_claimed_slot
from keras_wm.claims.recipients import (
    Membership,
    prove_membership,
    recipients_root,
)
from tests.conftest import fixed_key


def digest(*values):
    """Returns the hash of fields, as docs/claim.md specifies it."""
    content = b""
    for value in ("keras_wm recipients 1", *values):
        data = value if isinstance(value, bytes) else str(value).encode()
        content += struct.pack(">Q", len(data)) + data
    return hashlib.sha256(content).digest()


def leaf(key, name, slots):
    recipient = key.for_recipient(name)
    seeds = [recipient.slot_commitment(slot) for slot in range(slots)]
    return digest("leaf", recipient.recipient, recipient.commitment, *seeds)


def tree(leaves):
    """Returns the hash of a tree, from the last pair of a row to the first."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while 2 * half < len(leaves):
        half *= 2
    return digest("node", tree(leaves[:half]), tree(leaves[half:]))


def names(count):
    return [f"customer-{number}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13])
def test_the_root_follows_the_specification(count):
    leaves = sorted(leaf(fixed_key(), name, 2) for name in names(count))
    expected = digest("root", count, tree(leaves)).hex()
    assert recipients_root(fixed_key(), names(count), 2) == RecipientsRoot(
        expected, count
    )


@settings(deadline=None, max_examples=30, derandomize=True)
@given(data=st.data(), count=st.integers(1, 20))
def test_every_recipient_can_prove_membership(data, count):
    key, everyone = fixed_key(), names(count)
    root = recipients_root(key, everyone, 1)
    name = data.draw(st.sampled_from(everyone))
    proof = prove_membership(key, everyone, 1, name)
    proof.check(root)
    assert len(proof.siblings) <= (count - 1).bit_length()
    # Neither another name, another place nor another number of recipients.
    other = replace(proof, name="somebody")
    places = [replace(proof, position=place) for place in range(-1, count + 2)]
    for wrong in [other, *places]:
        if wrong != proof:
            with pytest.raises(ClaimError, match="does not belong"):
                wrong.check(root)
    for number in (count + 1, 2 * count, 10**9):
        with pytest.raises(ClaimError, match="does not belong"):
            proof.check(replace(root, number=number))


def test_the_order_of_the_names_and_their_unicode_form_do_not_matter():
    key = fixed_key()
    one = recipients_root(key, ["a", "\u00dc", "c"], 1)
    assert one == recipients_root(key, ["c", "a", "U\u0308"], 1)
    assert one != recipients_root(key, ["a", "\u00dc", "d"], 1)
    assert one != recipients_root(key, ["a", "\u00dc", "c"], 2)
    assert one != recipients_root(fixed_key(owner="x"), ["a", "\u00dc", "c"], 1)


@pytest.mark.parametrize("wrong", [[], ["a", "a"], ["\u00dc", "U\u0308"], "ab"])
def test_a_list_needs_names_and_each_once(wrong):
    with pytest.raises(ClaimError, match="each once"):
        recipients_root(fixed_key(), wrong, 1)


def test_a_deep_tree_does_not_pass_for_a_small_list():
    # A root over 64 leaves that says 3: no path of its depth is accepted.
    key, everyone = fixed_key(), names(64)
    leaves = sorted(leaf(key, name, 1) for name in everyone)
    lying = RecipientsRoot(digest("root", 3, tree(leaves)).hex(), 3)
    for name in everyone[:8]:
        proof = prove_membership(key, everyone, 1, name)
        for position in range(3):
            with pytest.raises(ClaimError, match="does not belong"):
                replace(proof, position=position).check(lying)


def test_a_proof_shows_no_other_name():
    proof = prove_membership(fixed_key(), names(10), 1, "customer-3")
    text = str(proof)
    assert "customer-3" in text
    assert not any(f"customer-{n}'" in text for n in range(10) if n != 3)


def test_a_claim_belongs_to_its_list(model_file):
    key = fixed_key()
    claim = Claim.make(model_file, key, {"c1": 1}, recipients=names(5))
    claim.check_recipients(key, names(5)[::-1])
    for wrong in (names(4), names(6), ["x", *names(4)]):
        with pytest.raises(ClaimError, match="5 recipients that the claim"):
            claim.check_recipients(key, wrong)
    without = Claim.make(model_file, key, {"c1": 1})
    with pytest.raises(ClaimError, match="the 0 recipients"):
        without.check_recipients(key, names(5))


def test_an_opened_slot_of_a_recipient_belongs_to_the_claim(model_file):
    key = fixed_key()
    claim = Claim.make(model_file, key, {"c1": 1}, recipients=names(5))
    opened = open_claimed_slot(claim, key, 1, "customer-2", names(5))
    claim.check_key(opened)
    with pytest.raises(ClaimError, match="proof of membership"):
        claim.check_key(key.for_recipient("customer-2").open_slot(1))
    with pytest.raises(ClaimError, match="proof of membership"):
        claim.check_key(key.for_recipient("customer-2"))
    moved = key.for_recipient("customer-2").open_slot(2, opened.membership)
    with pytest.raises(ClaimError, match="another seed for slot 2"):
        claim.check_key(moved)
    renamed = {**opened.payload(), "recipient": "somebody"}
    with pytest.raises(ClaimError, match="does not belong"):
        claim.check_key(type(key).from_payload(renamed))
    fewer = {**opened.payload(), "bits": 31}
    with pytest.raises(ClaimError, match="bits=32"):
        claim.check_key(type(key).from_payload(fewer))
    with pytest.raises(ClaimError, match="no list of recipients"):
        Claim.make(model_file, key, {"c1": 1}).check_key(opened)
    with pytest.raises(ClaimError, match="not among its 5 names"):
        open_claimed_slot(claim, key, 1, "customer-9", names(5))


@pytest.mark.parametrize(
    "change",
    [
        {"slots": "x"},
        {"slots": ["x"]},
        {"siblings": [3]},
        {"siblings": ["00" * 32] * 70_000},
        {"position": -1},
        {"position": "0"},
        {"extra": 1},
    ],
)
def test_a_hostile_proof_is_refused(model_file, change):
    key = fixed_key()
    claim = Claim.make(model_file, key, {"c1": 1}, recipients=names(5))
    proof = prove_membership(key, names(5), 2, "customer-2").to_plain()
    opened = key.for_recipient("customer-2").open_slot(1, {**proof, **change})
    with pytest.raises(ClaimError):
        claim.check_key(opened)


def test_a_proof_is_plain_values_and_back():
    proof = prove_membership(fixed_key(), names(5), 2, "customer-2")
    key = fixed_key().for_recipient("customer-2")
    assert Membership.of_key(key, proof.to_plain()) == proof
