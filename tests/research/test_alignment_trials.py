"""Trials of the alignment: keys that mark their own references, and innocent suspects.

The study tests have one family-wise false alarm rate of 1e-3 over all paths.
"""

import keras
import numpy as np
import pytest
from scipy import stats

import keras_wm
from keras_wm.research.alignment_trials.controls import control_paths
from keras_wm.research.alignment_trials.networks import (
    TESTED,
    TESTED_KERNEL,
    ArrayModel,
    chain,
    tied_layers,
)
from keras_wm.research.alignment_trials.outcomes import (
    Path,
    family_wise,
    null_paths,
    power_paths,
)
from keras_wm.research.alignment_trials.training import trained_trials
from keras_wm.research.alignment_trials.trials import (
    SIBLING,
    UNRELATED,
    make_trial,
    with_margin,
)
from keras_wm.research.attacks.architecture import arrays_of, graph_of
from keras_wm.research.attacks.equivalence import Rewriter
from keras_wm.scheme.detection import detect
from tests.conftest import fixed_key, unrelated_keys
from tests.research.attacks.networks import (
    assert_outputs,
    outputs_of,
    with_weights,
)

WIDTH, BITS = 24, 32
EVERY = {TESTED: 0, "first": 1, "third": 2, "last": 3}
ARCHITECTURES = {
    "one marked kernel": lambda: chain(WIDTH, {TESTED: 0}),
    "every kernel marked": lambda: chain(WIDTH, EVERY),
    "two kernels in one slot": lambda: tied_layers(WIDTH),
}
TRAINED = {"one": {TESTED: 0}, "three": {TESTED: 0, "first": 1, "third": 2}}
FALSE_ALARMS = 1e-3 / (len(ARCHITECTURES) + len(TRAINED))


@pytest.mark.parametrize("filters", ["keyed", "mean"])
def test_a_mark_reaches_its_margin_by_changes_along_the_bits_only(rng, filters):
    """No other change raises a score, so this is the smallest one to first order."""
    key, kernel = fixed_key(16, filters=filters), rng.normal(size=(3, 3, 6, 20))
    marked = with_margin(kernel, key, 1.0)
    assert detect(marked, key).z_min > 0.98
    mark = key.for_shape(kernel.shape)
    bits = [
        np.outer(row, mark.filter_weights[number % key.groups]).ravel()
        for number, row in enumerate(mark.matrix)
    ]
    change = (marked - kernel).ravel()
    along_bits = np.linalg.lstsq(np.transpose(bits), change, rcond=None)[0]
    np.testing.assert_allclose(along_bits @ bits, change, atol=1e-9)
    np.testing.assert_array_equal(with_margin(marked, key, 0.9), marked)


def test_a_network_of_arrays_is_verified_like_a_keras_model(key):
    model = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            keras.layers.Dense(WIDTH, "relu", name="a"),
            keras.layers.Dense(WIDTH, name="b"),
        ],
        name="network",
    )
    model = with_weights(model)
    arrays = ArrayModel(model.get_config(), arrays_of(model))
    expected = keras_wm.verify(model, key, reference=model, checkpoint=model).to_dict()
    got = keras_wm.verify(arrays, key, reference=arrays, checkpoint=arrays).to_dict()
    assert got["attempts"] == expected["attempts"]
    assert got["log10_p"] == expected["log10_p"]


def test_a_rewriter_of_arrays_keeps_the_function():
    model = with_weights(
        keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
        )
    )
    expected = outputs_of(model)
    rewriter = Rewriter(graph_of(model), arrays_of(model), seed=1)
    rewriter.permute(1.0)
    rewriter.scale(1.0)
    model.set_weights(list(rewriter.weights.values()))
    assert_outputs(model, expected)


def test_paths_are_tested_against_uniform_p_values(rng):
    uniform = np.log10(rng.uniform(size=400))
    small = np.log10(rng.uniform(size=400) ** 1.5)
    assert Path("a", "aligned", uniform).p_value() > 1e-3
    assert Path("a", "aligned", small).p_value() < 1e-3
    corrected = np.minimum(0, uniform + 1)
    assert Path("a", "aligned", corrected).p_value() < 1e-3
    assert Path("a", "reordered", corrected).p_value() == 1
    reordered = Path("a", "reordered", small)
    expected = min(
        stats.binomtest(
            int(np.sum(small <= np.log10(level))), 400, level, "greater"
        ).pvalue
        for level in (0.05, 0.01, 0.001)
    )
    assert reordered.p_value() == pytest.approx(3 * expected)
    assert family_wise([reordered] * 4) == pytest.approx(12 * expected)


@pytest.fixture(scope="module")
def few_trials():
    """A few trials of a chain in which every kernel is marked."""
    architecture, keys = ARCHITECTURES["every kernel marked"](), unrelated_keys(8, BITS)
    return [make_trial(architecture, key, seed) for seed, key in enumerate(keys)]


def test_the_networks_of_a_trial_are_what_their_names_say(few_trials):
    for trial in few_trials:
        kernels = {
            name: network.arrays[TESTED_KERNEL]
            for name, network in trial.suspects.items()
        }
        reference = trial.reference.arrays
        assert detect(reference[TESTED_KERNEL], trial.key).ber == 0
        for layer, slot in EVERY.items():
            other = detect(reference[layer, "kernel"], trial.key.in_slot(slot))
            assert other.log10_p < -3
        before = trial.checkpoint.arrays[TESTED_KERNEL]
        assert detect(before, trial.key).log10_p > -3
        if trial is few_trials[0]:
            # It keeps its order, so that it can be compared.
            cosines = [
                stats.pearsonr(before.ravel(), kernels[name].ravel()).statistic
                for name in (SIBLING, UNRELATED)
            ]
            assert cosines[0] > 0.8
            assert abs(cosines[1]) < 0.2


def test_copies_of_marked_networks_are_found_by_both_alignments(few_trials):
    paths = {(path.suspect, path.attempt): path for path in power_paths(few_trials[:4])}
    for copy in ("rearranged", "trained and rearranged"):
        assert max(paths[copy, "unaligned"].log10_p) > -2
        for attempt in ("aligned", "aligned with the checkpoint"):
            assert max(paths[copy, attempt].log10_p) < -4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_alignment_finds_no_mark_where_there_is_none(name):
    """There are 2,001 keys in all; each marks its own reference."""
    architecture, start = ARCHITECTURES[name](), list(ARCHITECTURES).index(name)
    keys = unrelated_keys(2001, BITS)[start :: len(ARCHITECTURES)]
    trials = [make_trial(architecture, key, seed) for seed, key in enumerate(keys)]
    assert family_wise(null_paths(trials)) > FALSE_ALARMS
    # The same number of trials shows what alignment avoids.
    assert max(path.p_value() for path in control_paths(architecture, trials)) < 1e-3


@pytest.mark.parametrize("name", TRAINED)
def test_alignment_with_trained_networks_finds_no_mark_where_there_is_none(name):
    trials = trained_trials(unrelated_keys(40, 64), TRAINED[name], seed=0)
    assert family_wise(null_paths(trials)) > FALSE_ALARMS
    found = [path for path in power_paths(trials) if path.attempt != "unaligned"]
    assert max(max(path.log10_p) for path in found) < -9
