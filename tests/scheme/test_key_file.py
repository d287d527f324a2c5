"""Key files: their content, and the files that are rejected."""

import base64
import hashlib
import json
import os
import stat

import numpy as np
import pytest

from keras_wm import KeyFileError, WatermarkKey, WrongPassphraseError
from tests.conftest import FIXED_SECRET, fixed_key


@pytest.fixture
def path(tmp_path):
    return tmp_path / "owner.key"


def rewrite(path, change):
    """Changes a key file and corrects its checksum."""
    content = json.loads(path.read_text())
    change(content)
    content.pop("checksum")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("passphrase", [None, "correct horse", "Ünïcode"])
def test_a_saved_key_can_be_loaded(path, passphrase):
    key = fixed_key(48, "diff", "mean", owner="Ünïcode & Sons")
    key.save(path, passphrase)
    loaded = WatermarkKey.load(path, passphrase)
    assert loaded == key
    assert loaded.owner == key.owner
    messages = [given.for_shape((96, 4)).message for given in (loaded, key)]
    np.testing.assert_array_equal(*messages)


def test_a_golden_key_file_is_read(path):
    path.write_text(
        '{"format": "keras_wm key", "version": 2, "key": {"owner": "Example Ltd",'
        '"bits": 256, "projection": "random", "filters": "keyed",'
        f'"secret": "{FIXED_SECRET.hex()}"}}, "checksum":'
        '"b93e0348fd97b2dc33397a68143f05fa281d0a24061166d9dae482a880f9489e"}'
    )
    assert WatermarkKey.load(path) == fixed_key(256)


def test_only_the_owner_can_read_the_file(path):
    old = os.umask(0)
    try:
        fixed_key().save(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_is_only_overwritten_on_request(path):
    fixed_key().save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists already"):
        fixed_key(64).save(path)
    assert path.read_bytes() == before
    fixed_key(64).save(path, overwrite=True)
    assert WatermarkKey.load(path).bits == 64


def test_a_failed_save_leaves_nothing_behind(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fixed_key().save(path)
    assert list(path.parent.iterdir()) == []


def test_the_error_names_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fixed_key().save(tmp_path / "nowhere" / "owner.key")


def test_an_encrypted_file_shows_neither_secret_nor_owner(path):
    fixed_key().save(path, "correct horse")
    content = path.read_bytes()
    for trace in (FIXED_SECRET.hex().encode(), FIXED_SECRET, b"Example Ltd"):
        assert trace not in content
        assert base64.b64encode(trace)[:-4] not in content


@pytest.mark.parametrize("passphrase", [None, "", "wrong"])
def test_a_wrong_passphrase_has_an_error_of_its_own(path, passphrase):
    fixed_key().save(path, "correct horse")
    with pytest.raises(WrongPassphraseError, match="passphrase"):
        WatermarkKey.load(path, passphrase)


def test_a_passphrase_for_a_plain_file_is_an_error(path):
    fixed_key().save(path)
    with pytest.raises(WrongPassphraseError, match="not encrypted"):
        WatermarkKey.load(path, "correct horse")


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_truncated_file_is_reported_as_damaged(path, passphrase):
    fixed_key().save(path, passphrase)
    content = path.read_bytes()
    for end in range(60, len(content) - 2, 7):
        path.write_bytes(content[:end])
        with pytest.raises(KeyFileError, match="damaged or truncated"):
            WatermarkKey.load(path, passphrase)


@pytest.mark.parametrize(
    ("old", "new"), [("256", "255"), ("Example", "Another"), ("random", "direct")]
)
def test_a_changed_file_is_reported_as_changed(path, old, new):
    fixed_key(256).save(path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(KeyFileError, match="changed after it was written"):
        WatermarkKey.load(path)


def test_an_encrypted_file_with_a_corrected_checksum_cannot_be_opened(path):
    fixed_key().save(path, "correct horse")

    def weaken(content):
        content["encrypted"]["n"] = 2**14

    rewrite(path, weaken)
    with pytest.raises(WrongPassphraseError):
        WatermarkKey.load(path, "correct horse")


def test_the_error_for_a_newer_version_suggests_an_upgrade(path):
    fixed_key().save(path)
    rewrite(path, lambda content: content.update(version=3))
    with pytest.raises(KeyFileError, match=r"version 3.*Upgrade keras_wm"):
        WatermarkKey.load(path)


def test_a_file_of_the_first_version_needs_a_new_key(path):
    fixed_key().save(path)
    rewrite(path, lambda content: content.update(version=1))
    with pytest.raises(KeyFileError, match=r"version 1.*Make a new key"):
        WatermarkKey.load(path)


def test_a_research_key_is_not_certified_after_loading_either(path):
    fixed_key(groups=8).save(path)
    loaded = WatermarkKey.load(path)
    assert loaded == fixed_key(groups=8)
    assert not loaded.certified


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff\xfe\x00", b"[1]", b'{"a": 1}', b"[" * 100_000]
)
def test_another_file_is_not_a_key_file(path, content):
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match="not a keras_wm key file"):
        WatermarkKey.load(path)


def test_the_error_names_a_missing_file_or_a_folder(path):
    with pytest.raises(KeyFileError, match=r"owner\.key.*No such file"):
        WatermarkKey.load(path)
    with pytest.raises(KeyFileError, match="directory"):
        WatermarkKey.load(path.parent)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bits", "many"),
        ("groups", -1),
        ("projection", "x"),
        ("extra", 1),
        ("owner", None),
    ],
)
def test_a_key_with_invalid_fields_is_rejected(path, field, value):
    fixed_key().save(path)
    rewrite(path, lambda content: content["key"].update({field: value}))
    with pytest.raises(KeyFileError, match="not a valid key"):
        WatermarkKey.load(path)


@pytest.mark.parametrize("secret", ["00ff", "no hexadecimal digits", 7, None])
def test_an_invalid_secret_is_rejected(path, secret):
    fixed_key().save(path)
    rewrite(path, lambda content: content["key"].update(secret=secret))
    with pytest.raises(KeyFileError, match="damaged"):
        WatermarkKey.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 2**40},
        {"n": 3},
        {"p": 10**6},
        {"r": "x"},
        {"salt": "!!"},
        {"nonce": ""},
        {"sealed": None},
    ],
)
def test_a_file_cannot_demand_hours_of_work(path, change):
    fixed_key().save(path, "correct horse")
    rewrite(path, lambda content: content["encrypted"].update(change))
    with pytest.raises(KeyFileError, match="cannot be used"):
        WatermarkKey.load(path, "correct horse")


def test_without_cryptography_the_error_says_which_extra_to_install(path, monkeypatch):
    import sys

    monkeypatch.setitem(
        sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None
    )
    with pytest.raises(ImportError, match=r"keras-wm\[encrypt\]"):
        fixed_key().save(path, "correct horse")
    assert not path.exists()
