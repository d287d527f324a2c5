"""Copies and pickles of a regularizer: with its key, but never with its secret."""

import copy
import pickle

import numpy as np
import pytest

from keras_wm import WatermarkRegularizer
from keras_wm.scheme.secret import Secret
from tests.conftest import FIXED_SECRET, fixed_key
from tests.embedding.test_secrecy import OWNER, assert_no_secret_in
from tests.models import (
    dense_model,
    find_layer,
    fit_eagerly,
    key_not_found,
    mark,
    number,
)

pytestmark = pytest.mark.backends

KERNEL = np.random.default_rng(3).normal(size=(32, 64)).astype("float32")


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy])
def test_a_copy_has_the_key_and_the_same_value(key, make_copy):
    regularizer = mark(key, regularizer="l2", margin=1.0)
    made = make_copy(regularizer)
    assert made is not regularizer
    assert made.key is key
    assert number(made(KERNEL)) == number(regularizer(KERNEL))
    assert made.get_config() == regularizer.get_config()


def test_a_deep_copy_of_an_inactive_regularizer_is_inactive(key):
    with key_not_found():
        inactive = WatermarkRegularizer.from_config(mark(key).get_config())
    assert copy.deepcopy(inactive).key is None


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_finds_its_key_and_carries_no_secret(protocol):
    key = fixed_key(owner=OWNER)
    regularizer = mark(key, regularizer="l2")
    value = number(regularizer(KERNEL))  # derives the projection
    pickled = pickle.dumps(regularizer, protocol)
    assert_no_secret_in(pickled, key)
    rebuilt = pickle.loads(pickled)  # noqa: S301
    assert number(rebuilt(KERNEL)) == value
    with key_not_found():
        assert pickle.loads(pickled).key is None  # noqa: S301


def test_a_key_and_its_secret_are_not_pickled(key):
    for private in (key, Secret(FIXED_SECRET)):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(private)


def test_a_pickled_model_finds_its_key(key):
    model = dense_model(mark(key))
    fit_eagerly(model)
    pickled = pickle.dumps(model)
    assert_no_secret_in(pickled, key)
    rebuilt = pickle.loads(pickled)  # noqa: S301
    assert find_layer(rebuilt).kernel.regularizer.key == key
