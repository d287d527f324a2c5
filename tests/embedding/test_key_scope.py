"""keys: which keys a regularizer finds when it is rebuilt."""

import gc

import numpy as np
import pytest

import keras_wm
from keras_wm import WatermarkKey, WatermarkRegularizer
from tests.conftest import fixed_key
from tests.models import mark

pytestmark = pytest.mark.backends

INACTIVE = "rebuilt without its key"


def new_key(number):
    """Returns a key that no other object in this process holds."""
    return fixed_key.__wrapped__(secret=bytes([number]) * 32)


def test_a_live_key_is_found_without_a_scope():
    key = new_key(101)
    config = mark(key).get_config()
    assert WatermarkRegularizer.from_config(config).key == key


def test_a_key_in_another_slot_is_found_for_any_slot():
    key = new_key(102).in_slot(3)
    rebuilt = WatermarkRegularizer.from_config(mark(key, slot=1).get_config())
    assert rebuilt.key == key.in_slot(1)


def test_a_key_is_not_kept_alive_by_being_findable():
    key = new_key(103)
    config = mark(key).get_config()
    del key
    gc.collect()
    with pytest.warns(UserWarning, match=f"{INACTIVE}.*WatermarkKey.load before"):
        assert WatermarkRegularizer.from_config(config).key is None


def test_a_second_object_of_a_key_may_end_before_the_first():
    key = new_key(104)
    config = mark(key).get_config()
    new_key(104)
    gc.collect()
    assert WatermarkRegularizer.from_config(config).key == key


def test_an_opened_key_of_a_stranger_is_not_taken_for_the_key():
    key = new_key(105)
    config = mark(key).get_config()
    opened = key.open_slot(0)
    del key
    gc.collect()
    assert opened.commitment == config["commitment"]
    with pytest.warns(UserWarning, match=INACTIVE):
        assert WatermarkRegularizer.from_config(config).key is None


def test_only_the_keys_of_a_scope_are_found_inside_it(key):
    config = mark(key).get_config()
    with keras_wm.keys(fixed_key(8)), pytest.warns(UserWarning, match=INACTIVE):
        assert WatermarkRegularizer.from_config(config).key is None


def test_a_scope_without_keys_loads_on_purpose_without_one(key):
    config = mark(key).get_config()
    with keras_wm.keys():  # any warning would be an error here
        assert WatermarkRegularizer.from_config(config).key is None


def test_the_scope_ends_with_the_block_also_after_an_error(key):
    config = mark(key).get_config()
    with pytest.raises(RuntimeError, match="inside"), keras_wm.keys():
        raise RuntimeError("inside")
    assert WatermarkRegularizer.from_config(config).key == key


def test_scopes_nest(key):
    inner_key = fixed_key(8)
    configs = [mark(key).get_config(), mark(inner_key).get_config()]
    with keras_wm.keys(key):
        with keras_wm.keys(inner_key):
            inner = [WatermarkRegularizer.from_config(config) for config in configs]
        assert WatermarkRegularizer.from_config(configs[0]).key == key
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
    assert rebuilt.key == key
