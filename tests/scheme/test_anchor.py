"""Anchors: reading a kernel in weighted directions."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from keras_wm import WatermarkKey, detect
from keras_wm.scheme.anchor import MOST_DIRECTIONS, Anchor
from tests.conftest import fixed_key, unrelated_keys

INPUTS, FILTERS = 40, 96


def made_anchor(seed=0, inputs=INPUTS, count=3, gain=2.0, **lengths):
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(inputs, count)))
    return Anchor(np.full(count, gain), directions, **lengths)


@st.composite
def anchors(draw):
    inputs, count = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    gains = draw(arrays(np.float32, count, elements=st.floats(0, 1e4, width=32)))
    directions = draw(
        arrays(np.float16, (inputs, count), elements=st.floats(-1, 1, width=16))
    )
    return Anchor(gains, directions, draw(st.integers(1, 3)), draw(st.integers(1, 3)))


@given(anchors(), st.integers(1, 3))
def test_an_anchor_is_a_matrix_on_the_axis_of_the_inputs(anchor, columns):
    change = anchor.directions @ np.diag(anchor.gains) @ anchor.directions.T
    whole = np.kron(
        np.eye(anchor.before),
        np.kron(np.eye(len(change)) + change, np.eye(anchor.after)),
    )
    matrix = np.random.default_rng(0).normal(size=(anchor.size, columns))
    expected = whole @ matrix
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(anchor.applied(matrix), expected, atol=1e-12 * scale)


@given(anchors())
def test_an_anchor_is_recovered_from_its_json(anchor):
    payload = json.loads(json.dumps(anchor.payload()))
    again = Anchor.from_payload(payload)
    assert again == anchor and again.digest == anchor.digest
    np.testing.assert_array_equal(again.directions, anchor.directions)


def test_every_part_of_an_anchor_changes_its_digest():
    base = Anchor([1.0, 2.0], np.eye(4)[:, :2], before=2, after=3)
    others = [
        Anchor([1.0, 2.0 + 1e-6], np.eye(4)[:, :2], before=2, after=3),
        Anchor([1.0, 2.0], np.eye(4)[:, 1:3], before=2, after=3),
        Anchor([1.0, 2.0], np.eye(4)[:, :2], before=3, after=2),
        Anchor([1.0], np.eye(4)[:, :1], before=2, after=3),
    ]
    assert len({anchor.digest for anchor in (base, *others)}) == 5


@pytest.mark.parametrize("recipient", [False, True])
def test_scores_of_an_unmarked_kernel_stay_standard_normal(recipient):
    """KS at 1e-4, of the 64 scores of 15 keys, in a kernel of two directions."""
    rng = np.random.default_rng(5)
    kernel = rng.normal(size=(INPUTS, 2)) @ rng.normal(size=(2, FILTERS))
    anchor = made_anchor(gain=50.0)
    scores = []
    for key in unrelated_keys(15, bits=64):
        reader = key.for_recipient("customer") if recipient else key
        scores.extend(detect(kernel, reader.with_anchor(anchor)).z)
    assert stats.kstest(scores, "norm").pvalue > 1e-4


def test_an_anchor_that_favours_a_kernel_does_not_help_it():
    """The arrays are others with each anchor, so this mark reads like any other."""
    rng = np.random.default_rng(6)
    kernel, key = rng.normal(size=(INPUTS, FILTERS)), fixed_key(bits=16)
    mark = key.for_shape(kernel.shape)
    u = mark.filter_weights @ kernel.T
    favoured = np.argsort(mark.signs * np.einsum("jm,jm->j", mark.matrix, u))[-3:]
    directions = (u[favoured] / np.linalg.norm(u[favoured], axis=1)[:, None]).T
    detection = detect(kernel, key.with_anchor(Anchor([1e3] * 3, directions)))
    # The probability of a larger sum is 1e-5.
    assert abs(detection.z.sum()) / 4 < stats.norm.isf(5e-6)


def test_the_anchor_belongs_to_the_slot_of_the_key():
    key, anchor = fixed_key(), made_anchor()
    anchored = key.in_slot(2).with_anchor(anchor)
    assert anchored.anchor == anchor and anchored.in_slot(1).anchor is None
    assert anchored.in_slot(1).in_slot(2) == anchored != key.in_slot(2)
    assert anchored.in_slot(1) != key.in_slot(1)
    assert anchored.with_anchor(None) == key.in_slot(2)
    assert anchored.commitment == key.commitment
    shape = (INPUTS, FILTERS)
    assert anchored.for_shape(shape) != key.in_slot(2).for_shape(shape)
    assert anchored.for_recipient("customer").anchor == anchor


def test_an_opened_slot_reads_what_the_whole_key_reads():
    kernel = np.random.default_rng(7).normal(size=(INPUTS, FILTERS))
    anchored = fixed_key().with_anchor(made_anchor())
    np.testing.assert_array_equal(
        detect(kernel, anchored.open_slot(0)).z, detect(kernel, anchored).z
    )


def test_kernels_of_another_size_are_refused():
    key = fixed_key().with_anchor(made_anchor())
    assert not key.fits((INPUTS + 1, FILTERS))
    with pytest.raises(ValueError, match=r"M=40 .* Received: M=41"):
        key.for_shape((INPUTS + 1, FILTERS))


def test_a_key_that_was_given_as_arrays_cannot_have_an_anchor():
    explicit = WatermarkKey.from_arrays(np.ones((2, INPUTS)), [0, 1])
    with pytest.raises(ValueError, match="given as arrays"):
        explicit.with_anchor(made_anchor())


@pytest.mark.parametrize(
    ("gains", "directions", "lengths", "message"),
    [
        ([1.0], np.eye(3), {}, r"shapes \(1,\) and \(3, 3\)"),
        ([-1.0], np.ones((3, 1)), {}, "from 0 to 10000"),
        ([1e9], np.ones((3, 1)), {}, "from 0 to 10000"),
        ([np.nan], np.ones((3, 1)), {}, "or NaN"),
        ([1.0], np.full((3, 1), 1e9), {}, "from -1 to 1"),
        ([1.0], np.full((3, 1), np.nan), {}, "or NaN"),
        ([1.0], np.ones((3, 1)), {"before": 0}, "at least 1"),
        ([1.0], np.ones((3, 1)), {"after": 2**24}, "at most"),
        ([], np.ones((3, 0)), {}, "1 to 256 directions"),
        (
            np.ones(MOST_DIRECTIONS + 1),
            np.zeros((3, MOST_DIRECTIONS + 1)),
            {},
            "257 directions",
        ),
    ],
)
def test_invalid_anchors_are_refused(gains, directions, lengths, message):
    with pytest.raises(ValueError, match=message):
        Anchor(gains, directions, **lengths)


@pytest.mark.parametrize(
    "change",
    [
        {"gains": "no base64!"},
        {"gains": "AAA="},
        {"directions": "AAA="},
        {"inputs": "three"},
        {"inputs": 10**12},
        {"before": None},
        {"before": 1.5},
    ],
)
def test_a_hostile_payload_is_refused(change):
    payload = Anchor([1.0], np.ones((3, 1))).payload() | change
    with pytest.raises(ValueError, match="Expected"):
        Anchor.from_payload(payload)
    for received in (None, [], {}, "anchor"):
        with pytest.raises(ValueError, match="fields of an anchor"):
            Anchor.from_payload(received)
