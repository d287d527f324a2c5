"""The file of a key's anchors, beside the key file."""

import json
import stat

import numpy as np
import pytest

from keras_wm import WatermarkKey
from keras_wm.errors import KeyFileError
from keras_wm.scheme.anchor import Anchor
from tests.conftest import fixed_key


def new_key(owner="Example Ltd"):
    """Returns a key that no other test has given an anchor."""
    return fixed_key.__wrapped__(owner=owner)


def made_anchor(gain=1.0):
    return Anchor([gain, 2.0], np.eye(12)[:, :2])


@pytest.fixture
def path(tmp_path):
    """The path of a saved key."""
    path = tmp_path / "owner.key"
    new_key().save(path)
    return path


def anchors_file(path):
    return path.with_name("owner.key.anchors")


def test_an_anchor_is_kept_as_soon_as_it_is_added(path):
    key = WatermarkKey.load(path)
    assert not anchors_file(path).exists()
    key.in_slot(2).anchors.add(2, made_anchor())
    # All copies of the key have it, and the next program that loads the key.
    assert key.anchor is None and key.in_slot(2).anchor == made_anchor()
    assert WatermarkKey.load(path).in_slot(2).anchor == made_anchor()
    assert stat.S_IMODE(anchors_file(path).stat().st_mode) == 0o600


def test_anchors_of_a_new_key_are_kept_when_it_is_saved(tmp_path):
    key = new_key()
    key.anchors.add(0, made_anchor())
    key.save(tmp_path / "owner.key")
    key.anchors.add(1, made_anchor(3.0))
    again = WatermarkKey.load(tmp_path / "owner.key")
    assert again.anchor == made_anchor() and again == key
    assert again.in_slot(1).anchor == made_anchor(3.0)


def test_two_programs_that_add_anchors_lose_none(path):
    first, second = WatermarkKey.load(path), WatermarkKey.load(path)
    first.anchors.add(0, made_anchor())
    second.anchors.add(1, made_anchor(3.0))
    again = WatermarkKey.load(path)
    assert again.anchor == made_anchor()
    assert again.in_slot(1).anchor == made_anchor(3.0)


def test_an_anchor_is_never_replaced(path):
    key, late = WatermarkKey.load(path), WatermarkKey.load(path)
    key.anchors.add(0, made_anchor())
    key.anchors.add(0, made_anchor())
    before = anchors_file(path).read_bytes()
    with pytest.raises(ValueError, match=r"Slot 0 .* another anchor.*another slot"):
        key.anchors.add(0, made_anchor(3.0))
    with pytest.raises(KeyFileError, match="another anchor"):
        late.anchors.add(0, made_anchor(3.0))
    assert anchors_file(path).read_bytes() == before


def test_a_recipients_key_reads_through_the_anchors_of_the_owner(tmp_path):
    key = new_key()
    key.anchors.add(0, made_anchor())
    recipient = key.for_recipient("customer")
    recipient.save(tmp_path / "customer.key")
    assert WatermarkKey.load(tmp_path / "customer.key").anchor == made_anchor()


def test_anchors_of_another_key_are_neither_used_nor_replaced(path, tmp_path):
    key = WatermarkKey.load(path)
    key.anchors.add(0, made_anchor())
    other = new_key("Somebody else")
    before = path.read_bytes(), anchors_file(path).read_bytes()
    with pytest.raises(KeyFileError, match=r"expected the anchors of the key .*Move"):
        other.save(path, overwrite=True)
    assert (path.read_bytes(), anchors_file(path).read_bytes()) == before
    path.unlink()
    anchors_file(path).rename(tmp_path / "kept")
    other.save(path)
    (tmp_path / "kept").rename(anchors_file(path))
    with pytest.raises(KeyFileError, match=r"owner\.key\.anchors'.*another key"):
        WatermarkKey.load(path)


def test_a_failed_save_keeps_no_anchors_beside_the_other_key(path):
    other = new_key("Somebody else")
    with pytest.raises(FileExistsError):
        other.save(path)
    other.anchors.add(0, made_anchor())
    assert not anchors_file(path).exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\x80", b"[" * 100_000, b'{"format": "other"}'],
)
def test_a_damaged_file_is_refused(path, content):
    anchors_file(path).write_bytes(content)
    with pytest.raises(KeyFileError, match=r"owner\.key\.anchors'.*not a file of anch"):
        WatermarkKey.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"anchors": {}},
        {"version": 2},
        {"format": "keras_wm key"},
        {"commitment": "0" * 64},
    ],
)
def test_a_changed_file_is_refused(path, change):
    WatermarkKey.load(path).anchors.add(0, made_anchor())
    content = json.loads(anchors_file(path).read_text())
    anchors_file(path).write_text(json.dumps(content | change))
    with pytest.raises(KeyFileError, match="changed after it was written"):
        WatermarkKey.load(path)
