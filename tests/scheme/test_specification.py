"""A second implementation of docs/key.md, and its test vectors."""

import hashlib
import struct
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm import detect
from tests.conftest import FIXED_SECRET, fixed_key


def field(value):
    encoded = value if isinstance(value, bytes) else str(value).encode()
    return struct.pack(">Q", len(encoded)) + encoded


def stream(size, label, *parameters, secret=FIXED_SECRET):
    absorbed = b"".join(map(field, ("keras_wm key 1", secret, label, *parameters)))
    return hashlib.shake_256(absorbed).digest(size)


def bits_of(data, count):
    return [data[i // 8] >> (7 - i % 8) & 1 for i in range(count)]


def words_of(data):
    return [word for (word,) in struct.iter_unpack(">Q", data)]


def normal(word):
    k = word >> 11 & (2**52 - 1)
    value = -NormalDist().inv_cdf((k + 0.5) / 2**53)
    return -value if word >> 63 else value


def specified_matrix(projection, bits, m):
    matrix = np.zeros((bits, m))
    if projection == "random":
        for j in range(bits):
            matrix[j] = [normal(w) for w in words_of(stream(8 * m, "random", m, j))]
        return matrix
    words = words_of(stream(8 * m, projection, m))
    columns = sorted(range(m), key=words.__getitem__)
    for j in range(bits):
        if projection == "direct":
            matrix[j, columns[j]] = 1
        else:
            matrix[j, columns[2 * j]], matrix[j, columns[2 * j + 1]] = 1, -1
    return matrix


def specified_weights(filters, groups, count):
    if filters == "mean":
        return np.full((1, count), 1 / count)
    rows = np.empty((groups, count))
    for g in range(groups):
        words = words_of(stream(8 * count, "filters", count, g))
        order = sorted(range(count), key=words.__getitem__)
        rows[g] = [1 if 2 * order.index(i) < count else -1 for i in range(count)]
    return rows


@pytest.mark.parametrize("projection", ["random", "direct", "diff"])
def test_the_projection_follows_the_specification(projection):
    key = fixed_key(24, projection)
    expected = specified_matrix(projection, 24, 60)
    np.testing.assert_allclose(key.matrix(60), expected, rtol=1e-11)


@pytest.mark.parametrize("count", [1, 12, 13])
@pytest.mark.parametrize("filters", ["keyed", "mean"])
def test_the_filter_weights_follow_the_specification(filters, count):
    key = fixed_key(24, filters=filters)
    np.testing.assert_array_equal(
        key.filter_weights(count), specified_weights(filters, key.groups, count)
    )


def test_the_message_follows_the_specification():
    expected = bits_of(stream(8, "message", "Ünïcode & Sons", 60), 60)
    assert fixed_key(60, owner="Ünïcode & Sons").message.tolist() == expected


def test_unicode_forms_of_an_owners_name_give_the_same_key():
    assert fixed_key(owner="U\u0308") == fixed_key(owner="\u00dc")


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    bits=st.integers(1, 40),
    m=st.integers(12, 40),
    count=st.integers(3, 20),
    projection=st.sampled_from(["random", "direct", "diff"]),
    filters=st.sampled_from(["keyed", "mean"]),
)
def test_scores_follow_the_specification(bits, m, count, projection, filters):
    bits = min(bits, {"random": 2 * m - 1, "direct": m, "diff": m // 2}[projection])
    key = fixed_key(bits, projection, filters)
    kernel = np.random.default_rng(bits).normal(size=(m, count))
    matrix = specified_matrix(projection, bits, m)
    weights = specified_weights(filters, key.groups, count)
    message = bits_of(stream(-(-bits // 8), "message", "Example Ltd", bits), bits)
    spread = {"random": 1, "direct": m**-0.5, "diff": (2 / m) ** 0.5}[projection]
    expected = []
    for j in range(bits):
        u = kernel @ weights[j % key.groups]
        y = matrix[j] @ u
        expected.append((2 * message[j] - 1) * y / (spread * np.linalg.norm(u)))
    np.testing.assert_allclose(detect(kernel, key).z, expected, atol=1e-9)


def test_a_recipients_key_follows_the_specification():
    derived = fixed_key(24).for_recipient("Müller & Söhne")
    secret = stream(32, "recipient", "Müller & Söhne")
    assert derived.message.tolist() == bits_of(
        stream(3, "message", "Example Ltd", 24, secret=secret), 24
    )
    words = words_of(stream(8 * 60, "random", 60, 5, secret=secret))
    np.testing.assert_allclose(derived.matrix(60)[5], [normal(w) for w in words])
    choices = ("Example Ltd", 24, "random", "keyed", 16, "Müller & Söhne")
    committed = ("keras_wm key 1", secret, "commitment", *choices)
    expected = hashlib.sha256(b"".join(map(field, committed))).hexdigest()
    assert derived.commitment == expected


def test_the_vectors_of_the_specification():
    key = fixed_key(256)
    matrix = key.matrix(576)
    signs = (key.filter_weights(64)[0] > 0).astype(int)
    direct = fixed_key(256, "direct").matrix(576)
    assert (
        key.commitment
        == "239a5b6daca813d379f646e7e06f789e6bb30a4696a611ba3f010d358ae718a6"
    )
    assert (
        np.packbits(key.message).tobytes().hex()
        == "121bf01c1c7b4fb15b412adfc8446331b821a2a6bd30b84841f292870e5e78e3"
    )
    np.testing.assert_allclose(
        [matrix[0, 0], matrix[0, 1], matrix[255, 575]],
        [1.3630705978009536, 0.4127627225931145, 1.8115429869426771],
        rtol=1e-11,
    )
    assert np.packbits(signs).tobytes().hex() == "314af46130eabfc6"
    assert direct.argmax(axis=1)[:3].tolist() == [474, 352, 5]
    assert key.for_recipient("customer-17").commitment == (
        "7f45a7be36c0649e060210cf2eb9d4dc95c319dc3a1df461d8645aeb15ac7208"
    )
