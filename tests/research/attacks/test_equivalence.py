"""Attacks that leave what a network computes as it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm.research.attacks import equivalence, obfuscation
from keras_wm.research.attacks.equivalence import graph_of
from tests.research.attacks.networks import (
    BUILDERS,
    RECIPES,
    assert_same_answers,
    made_by,
    subclassed,
    with_weights,
)

REWRITING = (
    equivalence.PERMUTATION,
    equivalence.SCALING,
    equivalence.SIGN_FLIPS,
    equivalence.CHAINED,
)
ADDING = (obfuscation.UNHEEDED, obfuscation.CANCELLING, obfuscation.SHARING)


def by_name(attacks):
    return pytest.mark.parametrize("attack", attacks, ids=lambda one: one.name)


@pytest.fixture(scope="module", params=list(BUILDERS))
def network(request):
    return with_weights(BUILDERS[request.param]())


@by_name(REWRITING)
def test_other_weights_give_the_same_answers(network, attack):
    before = [np.asarray(one) for one in network.weights]
    attacked = attack(network, seed=3)
    assert_same_answers(attacked, network)
    changed = [
        float(np.abs(np.asarray(one) - was).max())
        for one, was in zip(attacked.weights, before, strict=True)
        if one.name == "kernel"
    ]
    assert max(changed) > 0.1
    # The network itself is left as it is.
    for one, was in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(one, was)


@by_name(ADDING)
def test_further_neurons_change_no_answer(network, attack):
    attacked = attack(network, seed=3)
    assert_same_answers(attacked, network)
    assert attacked.count_params() > 1.2 * network.count_params()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(recipe=RECIPES, seed=st.integers(0, 1000))
def test_no_layer_is_mistaken_for_one_that_lets_it_pass(recipe, seed):
    model = made_by(recipe)
    assert_same_answers(equivalence.CHAINED(model, seed=seed), model)
    assert_same_answers(obfuscation.SHARING(model, seed=seed), model)


def test_every_inner_layer_of_the_papers_network_is_rewritten():
    graph = graph_of(BUILDERS["wide residual"]())
    free = [one.count for one in graph.channels if not one.fixed]
    # The inner and outer channels of each block; those of the first convolution.
    assert free == [16, 16, 32, 32, 64, 64]
    # Each of them has a normalization behind it.
    assert sum(one.may_flip for one in graph.segments) == 6


@by_name((*REWRITING, *ADDING))
def test_it_follows_its_seed(attack):
    network = with_weights(BUILDERS["plain"]())
    first, again, other = (
        [np.asarray(one) for one in attack(network, seed=seed).weights]
        for seed in (1, 1, 2)
    )
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(not np.array_equal(*pair) for pair in zip(first, other, strict=True))


def test_a_subclassed_model_is_refused():
    model = subclassed(np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="Functional or Sequential"):
        graph_of(model)
