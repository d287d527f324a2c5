"""Training another mark over the first one."""

import numpy as np
import pytest

from keras_wm.embedding.marked_layers import find_marked_layers
from keras_wm.research.attacks import training
from keras_wm.research.attacks.overwriting import Overwriting, overwriting
from keras_wm.scheme.detection import detect
from tests.research.attacks.trained import HEAD, MARKED, PICTURES, arrays, network


def detection(model, key, layer=MARKED):
    return detect(arrays(model)[f"{layer}/kernel"], key)


@pytest.mark.backends
@pytest.mark.parametrize("filters", ["mean", "keyed"])
def test_the_attackers_own_mark_is_embedded(filters, monkeypatch):
    monkeypatch.setattr(training, "STEPS", 60)
    # Stronger than the default, because there are only 60 steps.
    settings = Overwriting(filters, MARKED, bits=32, strength=0.1, rate=0.05)
    attacked = settings(network(), PICTURES, seed=5)
    assert detection(attacked, settings.key(5)).ber < 0.05
    assert detection(attacked, settings.key(5)).log10_p < -9
    # Another seed gives another key, which has p < 10^-4 once in 10^4 cases.
    assert detection(attacked, settings.key(6)).log10_p > -4


def test_every_layer_that_can_hold_the_message_is_overwritten(monkeypatch):
    monkeypatch.setattr(training, "STEPS", 60)
    # The head's 16 x 3 weights can hold at most 95 bits.
    settings = Overwriting("keyed", bits=100, strength=0.1, rate=0.05)
    attacked = settings(network(), PICTURES, seed=5)
    for layer in ("one", MARKED):
        assert detection(attacked, settings.key(5), layer).log10_p < -6
    head = Overwriting("keyed", bits=32).key(5)
    assert detection(attacked, head, HEAD).log10_p > -4


def test_only_the_named_layer_is_overwritten(one_epoch):
    settings = Overwriting("keyed", MARKED, bits=100, strength=0.1, rate=0.05)
    attacked = settings(network(), PICTURES, seed=5)
    assert detection(attacked, settings.key(5)).log10_p < -9
    assert detection(attacked, settings.key(5), "one").log10_p > -4


def test_many_keys_at_once_have_the_margin_of_one():
    single, four = (Overwriting("keyed", MARKED, 16, keys=count) for count in (1, 4))
    assert (single.key(1).bits, single.key(1).groups) == (16, 16)
    assert (four.key(1).bits, four.key(1).groups) == (64, 64)
    model = network()
    four._attach(model, four.key(1))
    (marked_layer,) = find_marked_layers(model)
    # 0.17 sqrt(N / T), with 1,152 weights and the 16 bits of a single key.
    assert marked_layer.regularizer.margin == pytest.approx(0.17 * (1152 / 16) ** 0.5)


def test_every_round_has_another_key(one_epoch):
    settings = Overwriting("keyed", MARKED, bits=32, strength=0.1, rate=0.05, rounds=3)
    attacked = settings(network(), PICTURES, seed=5)
    assert detection(attacked, settings.key(5, 2)).log10_p < -9
    assert len({settings.key(5, number).commitment for number in range(3)}) == 3


@pytest.mark.backends
def test_the_seed_determines_the_result_and_no_penalty_is_left(one_epoch):
    attack = overwriting("keyed", MARKED, "bits")
    model = network()
    first, again = (attack(model, PICTURES, 64, seed=1) for _ in range(2))
    kernel = f"{MARKED}/kernel"
    np.testing.assert_allclose(arrays(first)[kernel], arrays(again)[kernel], atol=1e-5)
    assert find_marked_layers(first) == find_marked_layers(model) == []


@pytest.mark.parametrize("varied", ["strength", "rate", "bits", "keys", "rounds"])
def test_the_varied_setting_is_the_strength_of_the_attack(varied, monkeypatch):
    used = []
    monkeypatch.setattr(
        Overwriting,
        "__call__",
        lambda self, model, data, seed: used.append(self) or model,
    )
    attack, model = overwriting("keyed", MARKED, varied), network()
    for strength in attack.strengths:
        attack.change(model, None, strength, 0)
    assert [getattr(settings, varied) for settings in used] == list(attack.strengths)
    assert {settings.layer for settings in used} == {MARKED}


@pytest.mark.parametrize("wrong", [{"filters": "all"}, {"varied": "seed"}])
def test_unknown_filters_and_settings_are_rejected(wrong):
    with pytest.raises(ValueError, match=r"Expected one of .* Received"):
        overwriting(**{"filters": "mean", **wrong})


def test_a_missing_or_too_small_layer_is_reported():
    model = network()
    with pytest.raises(ValueError, match=r"no layer 'seven'.*'three'"):
        overwriting("keyed", "seven")(model, PICTURES)
    with pytest.raises(ValueError, match=r"Too many bits.*T=1024.*M=16"):
        overwriting("mean", HEAD, "bits")(model, PICTURES)
    with pytest.raises(ValueError, match=r"No layer of .* attacker's 1024 bits"):
        overwriting("mean", varied="bits")(model, PICTURES)


def test_a_small_layer_gets_fewer_bits():
    """Mean filters of 16, 9 and 72 weights hold fewer than twice as many bits."""
    model = network()
    for layer, bits in ((HEAD, 16), ("one", 16), (MARKED, 128), (None, 128)):
        assert Overwriting("mean", layer).shortened(model).bits == bits
        assert Overwriting("mean", layer, bits=8).shortened(model).bits == 8
