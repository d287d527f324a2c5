"""A key that shows one slot: what it can do, and what it cannot."""

import numpy as np
import pytest

import keras_wm
from keras_wm import KeyFileError, WatermarkKey, detect
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.slot_source import SlotSource
from tests.conftest import fixed_key
from tests.files.written import write_weights
from tests.marked_model import with_mark


def test_it_reads_the_mark_of_its_slot_and_says_what_it_is(tmp_path):
    whole = fixed_key()
    kernel = np.random.default_rng(1).normal(size=(48, 32))
    marked = with_mark(kernel, whole.in_slot(1), 1)
    opened = whole.open_slot(1)
    expected = detect(marked, whole.in_slot(1))
    np.testing.assert_array_equal(detect(marked, opened).z, expected.z)
    assert opened.commitment == whole.commitment
    assert not opened.certified
    assert "opened in slot 1 only" in repr(opened)
    path = write_weights(tmp_path / "a.weights.h5", marked.astype("float32"))
    report = keras_wm.verify(path, opened)
    assert report.marked
    assert any("one slot" in note for note in report.notes)


def test_it_shows_no_other_slot_and_no_recipient():
    opened = fixed_key().open_slot(1)
    with pytest.raises(ValueError, match=r"shows slot 1 only.*slot=0"):
        opened.in_slot(0)
    with pytest.raises(ValueError, match=r"shows slot 1 only.*slot=2"):
        opened.slot_commitment(2)
    with pytest.raises(ValueError, match="recipient's key cannot be"):
        opened.for_recipient("customer-17")
    with pytest.raises(ValueError, match="a whole key"):
        opened.open_slot(1)
    assert opened.in_slot(1) is opened


def test_it_survives_its_file(tmp_path):
    for number, key in enumerate((fixed_key(), fixed_key().for_recipient("a"))):
        opened = key.open_slot(3, {"position": 1} if number else None)
        opened.save(tmp_path / f"{number}.key")
        loaded = WatermarkKey.load(tmp_path / f"{number}.key")
        assert loaded == opened
        assert loaded.membership == opened.membership
        assert (loaded.slot, loaded.recipient) == (3, key.recipient)


def test_only_a_certified_whole_key_can_be_opened():
    rows = np.random.default_rng(1).normal(size=(4, 8))
    for key in (fixed_key(groups=3), WatermarkKey.from_arrays(rows, [0, 1, 1, 0])):
        with pytest.raises(ValueError, match="that is derived as docs"):
            key.open_slot(0)
    with pytest.raises(ValueError, match="0 or more"):
        fixed_key().open_slot(-1)


def test_a_forged_seed_is_another_key_even_in_the_cache():
    whole = fixed_key()
    genuine, message = whole.open_slot(0), whole.for_shape((48, 32)).message
    fields = {**genuine.payload(), "secret": Secret(bytes(32))}
    forged = WatermarkKey.from_payload(fields)
    assert forged.commitment == whole.commitment
    assert forged != genuine
    assert (forged.for_shape((48, 32)).message != message).any()
    assert (genuine.for_shape((48, 32)).message == message).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("commitment", "ab"),
        ("commitment", None),
        ("slot", -1),
        ("slot", True),
        ("bits", "32"),
        ("owner", ""),
        ("projection", "explicit"),
        ("other", 1),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, name, value):
    source = fixed_key().open_slot(0)._source
    assert isinstance(source, SlotSource)
    from keras_wm.scheme.key_file import write_key

    write_key(tmp_path / "a.key", {**source.payload(), name: value}, None, False)
    with pytest.raises(KeyFileError, match="not a valid key"):
        WatermarkKey.load(tmp_path / "a.key")
