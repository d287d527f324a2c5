"""keys: the scope in which rebuilt regularizers find their keys."""

import numpy as np
import pytest

import keras_wm
from keras_wm import WatermarkKey, WatermarkRegularizer
from tests.conftest import fixed_key
from tests.models import mark

pytestmark = pytest.mark.backends

INACTIVE = "rebuilt without its key"


def test_the_scope_ends_with_the_block_also_after_an_error(key):
    config = mark(key).get_config()
    with pytest.raises(RuntimeError, match="inside"), keras_wm.keys(key):
        raise RuntimeError("inside")
    with pytest.warns(UserWarning, match=INACTIVE):
        assert WatermarkRegularizer.from_config(config).key is None


def test_scopes_nest(key):
    inner_key = fixed_key(8)
    configs = [mark(key).get_config(), mark(inner_key).get_config()]
    with keras_wm.keys(key):
        with keras_wm.keys(inner_key):
            inner = [WatermarkRegularizer.from_config(config) for config in configs]
        assert WatermarkRegularizer.from_config(configs[0]).key is key
        with pytest.warns(UserWarning, match=INACTIVE):
            WatermarkRegularizer.from_config(configs[1])
    assert [regularizer.key for regularizer in inner] == [key, inner_key]


def test_several_keys_can_be_provided_at_once(key):
    short_key = fixed_key(8)
    with keras_wm.keys(short_key, key, fixed_key(16)):
        for wanted in (key, short_key):
            rebuilt = WatermarkRegularizer.from_config(mark(wanted).get_config())
            assert rebuilt.key is wanted


def test_a_key_that_differs_in_anything_does_not_help(key):
    config = mark(key).get_config()
    for stranger in (
        fixed_key(secret=b"\x01" * 32),
        fixed_key(owner="Another Ltd"),
        fixed_key(31),
        fixed_key(projection="diff"),
        fixed_key(filters="mean"),
        fixed_key(groups=8),
    ):
        with keras_wm.keys(stranger), pytest.warns(UserWarning, match=INACTIVE):
            rebuilt = WatermarkRegularizer.from_config(config)
        assert rebuilt.key is None


def test_an_object_that_is_not_a_key_is_refused(key):
    refused = pytest.raises(TypeError, match="Expected a WatermarkKey")
    with refused, keras_wm.keys(key, "key.json"):
        pass


def test_an_explicit_key_is_found_again_too():
    rng = np.random.default_rng(0)
    key = WatermarkKey.from_arrays(rng.normal(size=(8, 32)), rng.integers(0, 2, 8))
    with keras_wm.keys(key):
        rebuilt = WatermarkRegularizer.from_config(mark(key).get_config())
    assert rebuilt.key is key
