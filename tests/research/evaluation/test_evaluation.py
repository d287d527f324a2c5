"""The requirements report of a marked network."""

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
from tests.research.evaluation.conftest import FAMILIES, WRONG_KEYS


def outcome(evaluation, attack, strength, host="marked"):
    (result,) = (
        outcome
        for outcome in evaluation.outcomes
        if (outcome.attack, outcome.strength, outcome.host) == (attack, strength, host)
    )
    return result


def wrong_predictions(model, pictures):
    outputs = keras.ops.convert_to_numpy(model(pictures.x_test))
    return outputs.argmax(axis=1) != pictures.y_test


def test_every_network_is_attacked_at_the_weakest_and_strongest_strength(evaluation):
    expected = {
        (attack.name, strength, host)
        for attacks in FAMILIES.values()
        for attack in attacks
        for strength in (attack.strengths[0], attack.strengths[-1])
        for host in ("marked", "unmarked 1")
    }
    cases = [
        (outcome.attack, outcome.strength, outcome.host)
        for outcome in evaluation.outcomes
    ]
    assert len(cases) == len(set(cases))
    assert set(cases) == expected


def test_test_error_and_bit_error_rate_are_those_of_the_attacked_network(
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
    result = outcome(evaluation, "quantization", 2)
    assert result.test_error == pytest.approx(wrong_predictions(copy, pictures).mean())
    detection = detect(np.asarray(copy.get_layer(LAYER).kernel), marked.key)
    assert result.ber == detection.ber


def _without_mark(layer):
    config = layer.get_config()
    config.pop("kernel_regularizer", None)
    return layer.__class__.from_config(config)


def test_alignment_finds_the_mark_after_a_permutation(evaluation):
    result = outcome(evaluation, "permutation", 1.0)
    assert result.aligned
    assert result.log10_p < -9
    assert result.test_error == pytest.approx(evaluation.fidelity.test_error)


def test_a_mark_that_is_found_with_bit_errors_is_aligned_too(marked):
    permutation = replace(PERMUTATION, strengths=(0.25,))
    unaligned = verify(permutation(marked.model), marked.key, LAYER)
    assert unaligned.marked
    assert unaligned.ber > 0
    subject = Subject(marked.model, marked.key, LAYER, owners=marked.model)
    (result,) = outcomes(subject, {"equivalence": [permutation]}, data=None, seeds=1)
    assert result.aligned
    assert result.ber == 0
    assert result.log10_p < unaligned.log10_p


def test_an_attack_that_does_not_apply_says_why(evaluation):
    summaries = evaluation.attack_summaries
    (fusion,) = (summary for summary in summaries if summary.family == "fusion")
    assert "normalization" in fusion.refused
    assert fusion.largest_log10_p is None
    assert fusion not in evaluation.removed


def test_an_attack_counts_only_if_the_network_is_useful_after_it(evaluation):
    limit = evaluation.fidelity.test_error + evaluation.tolerance
    for summary in evaluation.attack_summaries:
        counted = [
            outcome.log10_p
            for outcome in summary.outcomes
            if not outcome.refused and outcome.test_error <= limit
        ]
        assert summary.largest_log10_p == max(counted, default=None)
        removes = bool(counted) and max(counted) >= -9
        assert (summary in evaluation.removed) == removes


def test_fidelity_is_the_difference_over_the_same_pictures(
    evaluation, marked, twin, pictures
):
    marked_wrong, twin_wrong = (
        wrong_predictions(model, pictures) for model in (marked.model, twin)
    )
    fidelity = evaluation.fidelity
    assert fidelity.test_error == pytest.approx(marked_wrong.mean())
    assert fidelity.baseline_error == pytest.approx(twin_wrong.mean())
    difference = marked_wrong.astype(float) - twin_wrong
    assert fidelity.difference == pytest.approx(difference.mean())
    standard_error = np.sqrt(difference.var(ddof=1) / len(difference))
    assert fidelity.half_interval == pytest.approx(1.96 * standard_error)


def test_capacity_is_that_of_the_kernel(evaluation, marked):
    capacity = evaluation.capacity
    assert (capacity.bits, capacity.size, capacity.count) == (64, 144, 32)
    # 64 vectors of balanced signs span 31 dimensions of 32 filters.
    assert capacity.readable_bits == 144 * 31
    kernel = np.asarray(marked.model.get_layer(LAYER).kernel)
    margin = detect(kernel, marked.key).z.mean()
    assert capacity.margin == pytest.approx(margin, rel=1e-3)
    assert capacity.share == pytest.approx(capacity.margin * np.sqrt(64 / (144 * 32)))


def test_error_rates_are_those_of_marked_and_unmarked_networks(evaluation):
    for item in evaluation.modifications():
        marked = outcome(evaluation, item.attack, item.strength)
        unmarked = outcome(evaluation, item.attack, item.strength, "unmarked 1")
        assert item.false_negatives == (marked.log10_p >= -9)
        # By definition, a false alarm has a probability below 1e-9.
        assert item.false_positives == (unmarked.log10_p < -9) == 0
        assert item.symbol_error_rate == marked.ber


def test_no_wrong_key_is_found_and_their_time_is_measured(evaluation):
    security = evaluation.security
    assert security.wrong_keys == WRONG_KEYS
    assert security.wrong_keys_found == 0
    # The smallest of 20 p-values is below 1e-9 in 2e-8 of cases.
    assert security.smallest_log10_p > -9
    assert security.seconds_per_key > 0


def test_the_report_is_plain_json(evaluation):
    report = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert len(report["outcomes"]) == len(evaluation.outcomes)
    assert report["verification"]["verdict"] == "proven"
    assert "follows the method" in report["method"]
    assert "conforms" not in json.dumps(report)


def test_without_data_nothing_is_trained_and_every_attack_counts(marked):
    evaluation = evaluate(
        marked.model, marked.key, families=["perturbation"], strengths=1
    )
    names = {outcome.attack for outcome in evaluation.outcomes}
    assert names == {
        attack.name
        for attack in families(LAYER)["perturbation"]
        if not attack.needs_data
    }
    assert evaluation.fidelity.test_error is None
    assert evaluation.efficiency.step_ratio is None
    assert all(summary.counted for summary in evaluation.attack_summaries)


def test_progress_is_reported(marked):
    calls = []
    evaluate(
        marked.model,
        marked.key,
        families=["quantization"],
        strengths=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_network_without_the_mark_is_not_evaluated(twin, marked):
    with pytest.raises(ValueError, match="carries the key's mark"):
        evaluate(twin, marked.key)
    with pytest.raises(ValueError, match="not found"):
        evaluate(marked.files[".keras"], fixed_key(64, secret=b"\x07" * 32))


def test_data_that_do_not_fit_the_network_are_rejected(marked, pictures):
    larger = replace(pictures, x_train=np.zeros((64, 9, 9, 1), np.float32))
    with pytest.raises(ValueError, match=r"shape \(8, 8, 1\).*shape \(9, 9, 1\)"):
        evaluate(marked.model, marked.key, larger)
    more = replace(pictures, y_train=pictures.y_train + 1)
    with pytest.raises(ValueError, match=r"labels from 1 to 4, .*\(None, 4\)"):
        evaluate(marked.model, marked.key, more)


def test_grey_pictures_need_no_axis_for_their_channel(marked, pictures, evaluation):
    flat = replace(
        pictures, x_train=pictures.x_train[..., 0], x_test=pictures.x_test[..., 0]
    )
    again = evaluate(marked.model, marked.key, flat, families=["fusion"], strengths=1)
    assert again.fidelity.test_error == evaluation.fidelity.test_error


def test_an_unknown_family_lists_the_known_ones(marked):
    with pytest.raises(ValueError, match=r"among fine-tuning, .*Received: magic"):
        evaluate(marked.model, marked.key, families=["magic"])
