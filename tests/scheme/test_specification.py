"""A second implementation of docs/key.md, and its test vectors."""

import hashlib
import json
import struct
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm import WatermarkKey, detect
from keras_wm.scheme.anchor import Anchor
from tests.conftest import FIXED_SECRET, fixed_key


def field(value):
    encoded = value if isinstance(value, bytes) else str(value).encode()
    return struct.pack(">Q", len(encoded)) + encoded


def joined(*values):
    return b"".join(map(field, ("keras_wm key 2", *values)))


@cache
def root(*choices, secret=FIXED_SECRET):
    """Returns the root of a key, for owner, T, projection and filters."""
    salt = joined(*choices)
    return hashlib.scrypt(secret, salt=salt, n=16384, r=8, p=1, dklen=32)


def derived(seed, size, *parameters):
    return hashlib.shake_256(joined(seed, *parameters)).digest(size)


class Kernel:
    """The streams of a kernel of shape (M, L) in a slot."""

    def __init__(self, key_root, m, count, slot=0):
        self.seed = derived(key_root, 32, "slot", slot)
        self.m, self.count = m, count

    def stream(self, size, label, *parameters):
        return derived(self.seed, size, label, self.m, self.count, *parameters)

    def message(self, bits):
        return bits_of(self.stream(-(-bits // 8), "message"), bits)

    def matrix(self, projection, bits):
        matrix = np.zeros((bits, self.m))
        if projection == "random":
            for j in range(bits):
                words = words_of(self.stream(8 * self.m, "random", j))
                matrix[j] = [normal(word) for word in words]
            return matrix
        words = words_of(self.stream(8 * self.m, projection))
        columns = sorted(range(self.m), key=words.__getitem__)
        for j in range(bits):
            if projection == "direct":
                matrix[j, columns[j]] = 1
            else:
                matrix[j, columns[2 * j]], matrix[j, columns[2 * j + 1]] = 1, -1
        return matrix

    def sums(self, bits):
        length = self.m * self.count // bits
        streams = [self.stream(length, "sums", j) for j in range(bits)]
        return [[byte.bit_count() - 4 for byte in stream] for stream in streams]

    def weights(self, filters, bits):
        if filters == "mean":
            return np.full((1, self.count), 1 / self.count)
        rows = np.empty((min(64, bits), self.count))
        for g in range(len(rows)):
            words = words_of(self.stream(8 * self.count, "filters", g))
            order = sorted(range(self.count), key=words.__getitem__)
            rows[g] = [
                1 if 2 * order.index(i) < self.count else -1 for i in range(self.count)
            ]
        return rows


def bits_of(data, count):
    return [data[i // 8] >> (7 - i % 8) & 1 for i in range(count)]


def words_of(data):
    return [word for (word,) in struct.iter_unpack(">Q", data)]


def normal(word):
    k = word >> 11 & (2**52 - 1)
    value = -NormalDist().inv_cdf((k + 0.5) / 2**53)
    return -value if word >> 63 else value


@pytest.mark.parametrize("projection", ["random", "direct", "diff"])
def test_the_projection_follows_the_specification(projection):
    kernel = Kernel(root("Example Ltd", 24, projection, "keyed"), 60, 8)
    matrix = fixed_key(24, projection).for_shape((60, 8)).matrix
    np.testing.assert_allclose(matrix, kernel.matrix(projection, 24), rtol=1e-11)


@pytest.mark.parametrize("count", [1, 12, 13])
@pytest.mark.parametrize("filters", ["keyed", "mean"])
def test_the_filter_weights_follow_the_specification(filters, count):
    kernel = Kernel(root("Example Ltd", 24, "random", filters), 60, count)
    weights = fixed_key(24, filters=filters).for_shape((60, count)).filter_weights
    np.testing.assert_array_equal(weights, kernel.weights(filters, 24))


def test_the_message_follows_the_specification():
    kernel = Kernel(root("Ünïcode & Sons", 60, "random", "keyed"), 72, 5, slot=3)
    key = fixed_key(60, owner="Ünïcode & Sons")
    message = key.in_slot(3).for_shape((3, 3, 8, 5)).message
    assert message.tolist() == kernel.message(60)


def test_unicode_forms_of_an_owners_name_give_the_same_key():
    assert fixed_key(owner="U\u0308") == fixed_key(owner="\u00dc")


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    bits=st.integers(1, 80),
    m=st.integers(12, 40),
    count=st.integers(3, 20),
    projection=st.sampled_from(["random", "direct", "diff"]),
    filters=st.sampled_from(["keyed", "mean"]),
)
def test_scores_follow_the_specification(bits, m, count, projection, filters):
    bits = min(bits, {"random": 2 * m - 1, "direct": m, "diff": m // 2}[projection])
    values = np.random.default_rng(bits).normal(size=(m, count))
    kernel = Kernel(root("Example Ltd", bits, projection, filters), m, count)
    matrix, weights = kernel.matrix(projection, bits), kernel.weights(filters, bits)
    spread = {"random": 1, "direct": m**-0.5, "diff": (2 / m) ** 0.5}[projection]
    expected = []
    for j, bit in enumerate(kernel.message(bits)):
        u = values @ weights[j % len(weights)]
        y = matrix[j] @ u
        expected.append((2 * bit - 1) * y / (spread * np.linalg.norm(u)))
    z = detect(values, fixed_key(bits, projection, filters)).z
    np.testing.assert_allclose(z, expected, atol=1e-9)


def digest_of(gains, directions, before, after):
    """Returns the digest of an anchor, given arrays of the stored precision."""
    inputs, count = directions.shape
    lengths = (before, inputs, after, count)
    fields = ("keras_wm anchor 1", *lengths, gains.tobytes(), directions.tobytes())
    return hashlib.sha256(b"".join(map(field, fields))).hexdigest()


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("in_blocks", [False, True])
def test_an_anchors_scores_follow_the_specification(before, after, in_blocks):
    bits, inputs, count = 24, 10, 12
    rng = np.random.default_rng(before)
    gains = rng.uniform(0, 9, 2).astype("<f4")
    directions = rng.uniform(-1, 1, (inputs, 2)).astype("<f2")
    m = before * inputs * after
    values = rng.normal(size=(m, count))
    choices = ("Example Ltd", bits, "random", "keyed")
    own_root = recipients_root("a", *choices) if in_blocks else root(*choices)
    kernel = Kernel(own_root, m, count, slot=1)
    salt = joined("anchor", digest_of(gains, directions, before, after))
    kernel.seed = hashlib.scrypt(kernel.seed, salt=salt, n=16384, r=8, p=1, dklen=32)
    wide = directions.astype(float)
    weighting = np.eye(inputs) + wide @ np.diag(gains.astype(float)) @ wide.T
    whole = np.kron(np.eye(before), np.kron(weighting, np.eye(after)))
    expected = []
    for j, bit in enumerate(kernel.message(bits)):
        if in_blocks:
            length = m * count // bits
            row = kernel.sums(bits)[j]
            u = (whole @ values).ravel()[j * length : (j + 1) * length] * np.sqrt(2)
            y = row @ u / np.sqrt(2)
        else:
            u = whole @ values @ kernel.weights("keyed", bits)[j]
            y = kernel.matrix("random", bits)[j] @ u
        expected.append((2 * bit - 1) * y / np.linalg.norm(u))
    key = fixed_key(bits).for_recipient("a") if in_blocks else fixed_key(bits)
    anchored = key.in_slot(1).with_anchor(Anchor(gains, directions, before, after))
    np.testing.assert_allclose(detect(values, anchored).z, expected, atol=1e-9)


def recipients_root(recipient, *choices):
    return derived(root(*choices), 32, "recipient", recipient)


def test_a_recipients_key_follows_the_specification():
    recipients = fixed_key(24, "diff", "mean").for_recipient("Müller & Söhne")
    own_root = recipients_root("Müller & Söhne", "Example Ltd", 24, "diff", "mean")
    kernel, mark = Kernel(own_root, 60, 8), recipients.for_shape((60, 8))
    assert mark.message.tolist() == kernel.message(24)
    assert mark.matrix.tolist() == kernel.sums(24)
    committed = joined(
        own_root, "commitment", "Example Ltd", 24, "recipient", "Müller & Söhne"
    )
    assert recipients.commitment == hashlib.sha256(committed).hexdigest()


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    bits=st.sampled_from([1, 7, 24]),
    shape=st.tuples(st.integers(2, 30), st.integers(1, 20)).filter(
        lambda shape: shape[0] * shape[1] >= 24
    ),
    slot=st.integers(0, 2),
)
def test_a_recipients_scores_follow_the_specification(bits, shape, slot):
    m, count = shape
    values = np.random.default_rng(bits).normal(size=shape)
    own_root = recipients_root("a", "Example Ltd", bits, "random", "keyed")
    kernel, length = Kernel(own_root, m, count, slot), m * count // bits
    expected = []
    for j, (bit, row) in enumerate(
        zip(kernel.message(bits), kernel.sums(bits), strict=True)
    ):
        block = values.ravel()[j * length : (j + 1) * length]
        norm = np.sqrt(2) * np.linalg.norm(block)
        expected.append((2 * bit - 1) * (row @ block) / norm)
    key = fixed_key(bits).for_recipient("a").in_slot(slot)
    np.testing.assert_allclose(detect(values, key).z, expected, atol=1e-9)


@pytest.mark.parametrize("projection", ["random", "direct"])
def test_an_opened_slot_follows_the_specification(projection, tmp_path):
    whole = fixed_key(24, projection)
    path = tmp_path / "slot.key"
    whole.open_slot(2).save(path)
    fields = json.loads(path.read_text("utf-8"))["key"]
    expected = Kernel(root("Example Ltd", 24, projection, "keyed"), 60, 8, slot=2)
    assert fields == {
        "owner": "Example Ltd",
        "bits": 24,
        "projection": projection,
        "filters": "keyed",
        "commitment": whole.commitment,
        "slot": 2,
        "secret": expected.seed.hex(),
    }
    mark = WatermarkKey.load(path).for_shape((60, 8))
    assert mark.message.tolist() == expected.message(24)
    np.testing.assert_allclose(mark.matrix, expected.matrix(projection, 24), rtol=1e-11)
    np.testing.assert_array_equal(mark.filter_weights, expected.weights("keyed", 24))
    committed = hashlib.sha256(joined(expected.seed, "commitment", "slot", 2))
    assert whole.slot_commitment(2) == committed.hexdigest()
    anchor = Anchor([1.0], np.eye(60)[:, :1])
    committed.update(joined(anchor.digest)[len(joined()) :])
    anchored = whole.in_slot(2).with_anchor(anchor)
    assert anchored.slot_commitment(2) == committed.hexdigest()


def test_an_opened_slot_of_a_recipient_follows_the_specification(tmp_path):
    path = tmp_path / "slot.key"
    recipient = fixed_key(24).for_recipient("customer-17")
    recipient.open_slot(1).save(path)
    fields = json.loads(path.read_text("utf-8"))["key"]
    owners_root = root("Example Ltd", 24, "random", "keyed")
    recipients_root = derived(owners_root, 32, "recipient", "customer-17")
    expected = Kernel(recipients_root, 60, 8, slot=1)
    assert fields["secret"] == expected.seed.hex()
    assert fields["commitment"] == recipient.commitment
    assert "projection" not in fields
    opened = WatermarkKey.load(path)
    assert opened.for_shape((60, 8)).message.tolist() == expected.message(24)
    values = np.random.default_rng(1).normal(size=(60, 8))
    whole = detect(values, recipient.in_slot(1))
    np.testing.assert_array_equal(detect(values, opened).z, whole.z)


def packed(bits):
    return np.packbits(bits).tobytes().hex()


def test_the_vectors_of_the_specification():
    key = fixed_key(256)
    kernel = key.for_shape((576, 64))
    signs = (kernel.filter_weights[0] > 0).astype(int)
    direct = fixed_key(256, "direct").for_shape((576, 64)).matrix
    recipients = key.for_recipient("customer-17")
    marked = recipients.for_shape((576, 64))
    vectors = [
        key.commitment,
        key._source._root.reveal(),
        packed(kernel.message),
        packed(key.in_slot(1).for_shape((576, 64)).message),
        key.slot_commitment(1),
        packed(signs),
        recipients.commitment,
        packed(marked.message),
        ", ".join(f"{entry:g}" for entry in marked.matrix[0, :4]),
        ", ".join(map(str, direct.argmax(axis=1)[:3])),
    ]
    assert vectors == [
        "81c9f061d2acf6ece85b39257597a83166209d4793c9b457bfdc617b2bfc1d3b",
        "23f49f9d9fcd9ddd2316736e74a65c185e6011c3a91c2a282f6fcbcd4fcdd2f1",
        "54f366e9edf01908fae83b1b85c64d0a3265ec3beae1bcd61d04fca3308b4072",
        "d65acce0ba30f52968d91ecaac89051076a89b4a187afdc7b7e0a69da0bbf3fb",
        "849b847015e92062df82f99a4a60ab64a95f2c659ab21ca1df56f01b82a03b15",
        "481aeebe3bef0610",
        "e4cb043d33cd4709268831ea7ea94cb640dd388be5b5fdc11f44d6245fcf1598",
        "fe1c438e4b340903bd223c4a7b16ad0f07bbd02891ae3c9d41ebb382ed368b5d",
        "-2, 3, 0, 1",
        "333, 226, 168",
    ]
    entries = [-1.5998129557202545, -1.2560512911595714, -0.14393995716607205]
    corners = [kernel.matrix[0, 0], kernel.matrix[0, 1], kernel.matrix[255, 575]]
    np.testing.assert_allclose(corners, entries, rtol=1e-11)
    page = Path(__file__, "../../../docs/key.md").resolve().read_text("utf-8")
    for vector in [
        *vectors,
        ", ".join(map(str, entries)),
    ]:
        assert vector in page
