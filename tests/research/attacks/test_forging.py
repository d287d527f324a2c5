"""Keys that are made for weights that are there."""

import numpy as np
from scipy import stats

import keras_wm
from keras_wm.research.attacks.forging import searched_keys, solved_key
from keras_wm.scheme.detection import detect


def test_a_projection_that_is_chosen_reads_any_message_off_any_weights(rng):
    kernel = rng.normal(size=(3, 3, 16, 8))
    key = solved_key(kernel, bits=100, seed=1)
    found = detect(kernel, key)
    assert found.ber == 0
    assert found.log10_p < -9
    # Nothing in X gives it away: Kolmogorov-Smirnov at 1e-6, all seeded.
    assert stats.kstest(key.matrix(144).ravel(), "norm").pvalue > 1e-6


def test_a_report_on_such_a_key_says_that_it_proves_nothing(marked):
    kernel = np.asarray(marked.model.get_layer("wide").kernel, np.float64)
    forged = solved_key(kernel, bits=100, seed=1)
    found = keras_wm.verify(marked.files[".keras"], forged)
    assert found.verdict == "proven"
    assert not found.certified
    assert "proves nothing by itself" in repr(found)


def test_the_best_of_n_secrets_has_a_p_value_of_about_1_over_n(rng):
    kernel = rng.normal(size=(40, 12))
    p = [10**one for _, one in searched_keys(kernel, bits=32, trials=400, seed=2)]
    # p-values of secrets that know nothing are uniform: Kolmogorov-Smirnov at 1e-6.
    assert stats.kstest(p, "uniform").pvalue > 1e-6
    # The smallest of 400 is below 20 / 400 in all but 1e-9 of cases.
    assert min(p) < 20 / 400


def test_a_key_that_was_found_by_search_is_what_verification_finds(rng):
    kernel = rng.normal(size=(40, 12))
    key, p = min(searched_keys(kernel, 32, 50, seed=2), key=lambda one: one[1])
    assert detect(kernel, key).log10_p == p
    again = min(searched_keys(kernel, 32, 50, seed=2), key=lambda one: one[1])
    assert again[0] == key
