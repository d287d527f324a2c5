"""Keys that are made for existing weights."""

import keras
import numpy as np
from scipy import stats

import keras_wm
from keras_wm.research.attacks.forging import searched_keys, solved_key
from keras_wm.scheme.detection import detect


def test_a_chosen_projection_reads_any_message_from_any_weights(rng):
    kernel = rng.normal(size=(3, 3, 16, 8))
    key = solved_key(kernel, bits=100, seed=1)
    detection = detect(kernel, key)
    assert detection.ber == 0
    assert detection.log10_p < -9
    # X looks like an honest one: Kolmogorov-Smirnov at 1e-6, all seeded.
    assert stats.kstest(key.for_shape((144, 8)).matrix.ravel(), "norm").pvalue > 1e-6


def test_a_report_on_a_forged_key_says_that_it_proves_nothing():
    model = keras.Sequential([keras.Input((144,)), keras.layers.Dense(8)])
    kernel = np.asarray(model.layers[0].kernel, np.float64)
    verification = keras_wm.verify(model, solved_key(kernel, bits=100, seed=1))
    assert verification.verdict == "proven"
    assert not verification.certified
    assert "proves nothing by itself" in repr(verification)


def test_the_best_of_n_secrets_has_a_p_value_of_about_1_over_n(rng):
    kernel = rng.normal(size=(40, 12))
    p = [10**log10_p for _, log10_p in searched_keys(kernel, 32, trials=100, seed=2)]
    # Keys are independent of the kernel, so p is uniform: Kolmogorov-Smirnov at 1e-6.
    assert stats.kstest(p, "uniform").pvalue > 1e-6
    # The smallest of 100 is below 20 / 100 in all but 2e-10 of cases.
    assert min(p) < 20 / 100


def test_verification_confirms_a_key_found_by_search(rng):
    kernel = rng.normal(size=(40, 12))
    key, p = min(searched_keys(kernel, 32, 20, seed=2), key=lambda pair: pair[1])
    assert detect(kernel, key).log10_p == p
    again, _ = min(searched_keys(kernel, 32, 20, seed=2), key=lambda pair: pair[1])
    assert again == key
