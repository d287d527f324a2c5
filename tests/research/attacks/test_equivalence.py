"""Attacks that do not change a network's function."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm.research.attacks import equivalence, obfuscation
from keras_wm.research.attacks.architecture import graph_of
from tests.research.attacks.networks import (
    BUILDERS,
    RECIPES,
    assert_outputs,
    built_from,
    outputs_of,
    subclassed,
    with_weights,
)


@pytest.fixture(scope="module", params=list(BUILDERS))
def network(request):
    return with_weights(BUILDERS[request.param]())


def attacked(attack, network, seed=3):
    """Attacks a network itself at full strength: copying it takes longer."""
    return attack.change(network, None, attack.strengths[-1], seed)


def test_rewritten_weights_give_the_same_outputs(network):
    expected, before = outputs_of(network), network.get_weights()
    kernels = [
        index
        for index, variable in enumerate(network.weights)
        if variable.name == "kernel"
    ]
    for attack in equivalence.ATTACKS:
        after = attacked(attack, network).get_weights()
        assert_outputs(network, expected)
        assert max(np.abs(after[k] - before[k]).max() for k in kernels) > 0.1, attack
        network.set_weights(before)


def test_added_neurons_do_not_change_the_outputs(network):
    expected = outputs_of(network)
    for attack in obfuscation.ATTACKS:
        wider = attacked(attack, network)
        assert_outputs(wider, expected)
        assert wider.count_params() > 1.2 * network.count_params(), attack


def test_the_attacks_work_on_a_copy():
    network = with_weights(BUILDERS["plain"]())
    expected, before = outputs_of(network), network.get_weights()
    for attack in (equivalence.CHAINED, obfuscation.SPLIT_NEURONS):
        assert_outputs(attack(network, seed=3), expected)
        for weights, original in zip(network.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weights, original)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(recipe=RECIPES, seed=st.integers(0, 1000))
def test_random_architectures_keep_their_outputs(recipe, seed):
    network = built_from(recipe)
    expected = outputs_of(network)
    assert_outputs(attacked(obfuscation.SPLIT_NEURONS, network, seed), expected)
    assert_outputs(attacked(equivalence.CHAINED, network, seed), expected)


def test_every_inner_layer_of_the_papers_network_is_rewritten():
    graph = graph_of(BUILDERS["wide residual"]())
    counts = [channels.count for channels in graph.sets if not channels.fixed]
    # The inner and outer channels of each block; those of the first convolution.
    assert counts == [16, 16, 32, 32, 64, 64]
    # Each of them is followed by a normalization.
    assert sum(segment.may_flip for segment in graph.segments) == 6


@pytest.mark.parametrize(
    "attack", equivalence.ATTACKS + obfuscation.ATTACKS, ids=lambda attack: attack.name
)
def test_the_random_seed_determines_the_result(attack):
    network = with_weights(BUILDERS["plain"]())
    before = network.get_weights()
    results = []
    for seed in (1, 1, 2):
        network.set_weights(before)
        results.append(attacked(attack, network, seed).get_weights())
    first, again, other = results
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert any(not np.array_equal(*pair) for pair in zip(first, other, strict=True))


def test_a_subclassed_model_is_rejected():
    model = subclassed(np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="Functional or Sequential"):
        graph_of(model)
