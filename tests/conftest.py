"""Fixtures that all tests share: fixed keys and a small marked model."""

import hashlib
import os
from functools import cache

# Set before anything imports TensorFlow, whose log would hide the output of a failing
# test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from keras_wm import WatermarkKey
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import SecretSource

FIXED_SECRET = bytes(range(32))


@cache
def fixed_key(
    bits=32,
    projection="random",
    filters="keyed",
    owner="Example Ltd",
    secret=FIXED_SECRET,
    groups=0,
):
    """Returns a key with a known secret, so that a test is deterministic."""
    source = SecretSource(
        Secret(secret), owner, bits, projection, filters, groups=groups
    )
    return WatermarkKey(source)


def unrelated_keys(count, bits=32, projection="random", filters="keyed"):
    """Returns independent keys with given roots, so that many take little time."""
    keys = []
    for number in range(count):
        secret = Secret(hashlib.sha256(str(number).encode()).digest())
        source = SecretSource(secret, "Somebody else", bits, projection, filters)
        # In place of the root by scrypt, which takes 40 ms.
        source.__dict__["_root"] = secret
        keys.append(WatermarkKey(source))
    return keys


@pytest.fixture
def key():
    """A key of 32 bits, which a small kernel can hold."""
    return fixed_key()


@pytest.fixture
def rng():
    """A seeded random generator."""
    return np.random.default_rng(20170606)


@pytest.fixture(scope="session")
def marked(tmp_path_factory):
    """A small marked and published model."""
    from tests.marked_model import make_marked_model

    return make_marked_model(tmp_path_factory.mktemp("marked"))


@pytest.fixture(scope="session")
def downloads(marked, tmp_path_factory):
    """A folder of downloaded files, some of them marked."""
    from tests.downloads import make_downloads

    return make_downloads(marked, tmp_path_factory.mktemp("downloads"))
