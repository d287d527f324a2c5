"""The requirements report: what it measures, and what counts."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_wm import verify
from keras_wm.research.attacks.catalogue import families
from keras_wm.research.attacks.equivalence import PERMUTATION
from keras_wm.research.evaluation import evaluate
from keras_wm.research.evaluation.outcomes import Subject, outcomes
from keras_wm.scheme.detection import detect
from tests.conftest import fixed_key
from tests.marked_model import LAYER
from tests.research.evaluation.conftest import FAMILIES


def outcome(evaluation, attack, strength, host="marked"):
    (found,) = (
        one
        for one in evaluation.outcomes
        if (one.attack, one.strength, one.host) == (attack, strength, host)
    )
    return found


def wrong(model, pictures):
    answers = keras.ops.convert_to_numpy(model(pictures.x_test))
    return answers.argmax(axis=1) != pictures.y_test


def test_every_attack_is_done_to_every_network_at_its_weakest_and_strongest(evaluation):
    expected = {
        (attack.name, strength, host)
        for family in FAMILIES
        for attack in families(LAYER)[family]
        for strength in (attack.strengths[0], attack.strengths[-1])
        for host in ("marked", "unmarked 1")
    }
    found = [(one.attack, one.strength, one.host) for one in evaluation.outcomes]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_an_attacked_network_is_measured_as_one_measures_by_hand(
    evaluation, marked, pictures
):
    copy = keras.models.clone_model(marked.model, clone_function=_without_mark)
    copy.set_weights(marked.model.get_weights())
    for layer in ("narrow", LAYER, "logits"):
        kernel = copy.get_layer(layer).kernel
        values = np.asarray(kernel)
        # Integers of 2 bits, with a scale for each filter: -1, 0 and 1.
        scale = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
        kernel.assign(np.round(values / scale) * scale)
    found = outcome(evaluation, "quantization", 2)
    assert found.test_error == pytest.approx(wrong(copy, pictures).mean())
    detected = detect(np.asarray(copy.get_layer(LAYER).kernel), marked.key)
    assert found.ber == detected.ber


def _without_mark(layer):
    config = layer.get_config()
    config.pop("kernel_regularizer", None)
    return layer.__class__.from_config(config)


def test_what_was_rearranged_is_found_by_alignment(evaluation):
    found = outcome(evaluation, "permutation", 1.0)
    assert found.aligned
    assert found.log10_p < -9
    assert found.test_error == pytest.approx(evaluation.fidelity.test_error)


def test_a_mark_that_is_found_with_lost_bits_is_aligned_too(marked):
    few = replace(PERMUTATION, strengths=(0.25,))
    as_it_is = verify(few(marked.model), marked.key, LAYER)
    assert as_it_is.marked
    assert as_it_is.ber > 0
    subject = Subject(marked.model, marked.key, LAYER, owners=marked.model)
    (found,) = outcomes(subject, {"equivalence": [few]}, data=None, seeds=1)
    assert found.aligned
    assert found.ber == 0
    assert found.log10_p < as_it_is.log10_p


def test_an_attack_that_cannot_be_done_says_why(evaluation):
    (fusion,) = (one for one in evaluation.resistances if one.family == "fusion")
    assert "normalization" in fusion.refused
    assert fusion.weakest is None
    assert fusion not in evaluation.removed


def test_an_attack_counts_only_if_the_network_is_worth_having_after_it(evaluation):
    error = evaluation.fidelity.test_error
    for resistance in evaluation.resistances:
        counted = [
            one.log10_p
            for one in resistance.strengths
            if not one.refused and one.test_error <= error + evaluation.tolerance
        ]
        assert resistance.weakest == max(counted, default=None)
        removes = bool(counted) and max(counted) >= -9
        assert (resistance in evaluation.removed) == removes


def test_fidelity_is_the_difference_over_the_same_pictures(
    evaluation, marked, twin, pictures
):
    one, other = wrong(marked.model, pictures), wrong(twin, pictures)
    found = evaluation.fidelity
    assert found.test_error == pytest.approx(one.mean())
    assert found.baseline_error == pytest.approx(other.mean())
    difference = one.astype(float) - other
    assert found.difference == pytest.approx(difference.mean())
    standard_error = np.sqrt(difference.var(ddof=1) / len(difference))
    assert found.half_interval == pytest.approx(1.96 * standard_error)


def test_capacity_is_that_of_the_kernel(evaluation, marked):
    found = evaluation.capacity
    assert (found.bits, found.size, found.count) == (64, 144, 32)
    assert found.holds == 144 * 16
    kernel = np.asarray(marked.model.get_layer(LAYER).kernel)
    margin = detect(kernel, marked.key).z.mean()
    assert found.margin == pytest.approx(margin, rel=1e-3)
    assert found.share == pytest.approx(found.margin * np.sqrt(64 / (144 * 32)))


def test_rates_of_error_are_over_marked_and_unmarked_networks(evaluation):
    for one in evaluation.modifications():
        here = outcome(evaluation, one.attack, one.strength)
        there = outcome(evaluation, one.attack, one.strength, "unmarked 1")
        assert one.false_negatives == (here.log10_p >= -9)
        # False alarm below 1e-9 a network by the definition of the verdict.
        assert one.false_positives == (there.log10_p < -9) == 0
        assert one.symbol_error_rate == here.ber


def test_no_wrong_key_is_found_and_trying_takes_time(evaluation):
    found = evaluation.security
    assert found.wrong_keys_found == 0
    # The smallest of 200 p-values is below 1e-9 in 2e-7 of cases.
    assert found.smallest_log10_p > -9
    assert found.seconds_a_key > 0


def test_the_report_is_plain_json(evaluation):
    report = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert len(report["outcomes"]) == len(evaluation.outcomes)
    assert report["verification"]["verdict"] == "proven"
    assert "follows the method" in report["method"]
    assert "conforms" not in json.dumps(report)


def test_without_data_nothing_is_trained_and_every_attack_counts(marked):
    found = evaluate(marked.model, marked.key, families=["perturbation"], strengths=1)
    names = {one.attack for one in found.outcomes}
    assert names == {
        attack.name
        for attack in families(LAYER)["perturbation"]
        if not attack.needs_data
    }
    assert found.fidelity.test_error is None
    assert found.efficiency.step_ratio is None
    assert all(one.counted for one in found.resistances)


def test_progress_is_told(marked):
    told = []
    evaluate(
        marked.model,
        marked.key,
        families=["quantization"],
        strengths=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_network_without_the_mark_is_not_evaluated(twin, marked):
    with pytest.raises(ValueError, match="carries the key's mark"):
        evaluate(twin, marked.key)
    with pytest.raises(ValueError, match="not found"):
        evaluate(marked.files[".keras"], fixed_key(64, secret=b"\x07" * 32))


def test_data_that_do_not_fit_the_network_are_refused(marked, pictures):
    larger = replace(pictures, x_train=np.zeros((1280, 9, 9, 1), np.float32))
    with pytest.raises(ValueError, match=r"shape \(8, 8, 1\).*shape \(9, 9, 1\)"):
        evaluate(marked.model, marked.key, larger)
    more = replace(pictures, y_train=pictures.y_train + 1)
    with pytest.raises(ValueError, match=r"labels from 1 to 4, .*\(None, 4\)"):
        evaluate(marked.model, marked.key, more)


def test_grey_pictures_may_come_without_their_channel(marked, pictures, evaluation):
    flat = replace(
        pictures, x_train=pictures.x_train[..., 0], x_test=pictures.x_test[..., 0]
    )
    found = evaluate(marked.model, marked.key, flat, families=["fusion"], strengths=1)
    assert found.fidelity.test_error == evaluation.fidelity.test_error


def test_a_family_that_does_not_exist_lists_those_that_do(marked):
    with pytest.raises(ValueError, match=r"among fine-tuning, .*Received: magic"):
        evaluate(marked.model, marked.key, families=["magic"])
