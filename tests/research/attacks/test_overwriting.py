"""Another mark over the first."""

import numpy as np
import pytest

from keras_wm.embedding.marked_layers import find_marked_layers
from keras_wm.research.attacks import training
from keras_wm.research.attacks.overwriting import Overwriting, overwriting
from keras_wm.scheme.detection import detect
from tests.research.attacks.trained import HEAD, MARKED, PICTURES, arrays, network

pytestmark = pytest.mark.usefixtures("short")


def found(model, key, layer=MARKED):
    return detect(arrays(model)[f"{layer}/kernel"], key)


@pytest.mark.backends
@pytest.mark.parametrize("filters", ["mean", "keyed"])
def test_the_attackers_own_mark_can_be_read(filters, monkeypatch):
    monkeypatch.setattr(training, "STEPS", 60)
    # Stronger than the default, for 60 steps are few.
    settings = Overwriting(filters, MARKED, bits=32, strength=0.1, rate=0.05)
    attacked = settings(network(), PICTURES, seed=5)
    assert found(attacked, settings.key(5)).ber == 0
    # Another seed has another key, which reads chance: wrongly here once in 10^4.
    assert found(attacked, settings.key(6)).log10_p > -4


def test_every_layer_that_can_hold_the_message_is_overwritten(monkeypatch):
    monkeypatch.setattr(training, "STEPS", 60)
    # The head's 16 x 3 weights satisfy at most 95 bits.
    settings = Overwriting("keyed", bits=100, strength=0.01, rate=0.05)
    attacked = settings(network(), PICTURES, seed=5)
    for layer in ("one", MARKED):
        assert found(attacked, settings.key(5), layer).log10_p < -6
    head = Overwriting("keyed", bits=32).key(5)
    assert found(attacked, head, HEAD).log10_p > -4


def test_a_named_layer_alone_is_overwritten():
    settings = Overwriting("keyed", MARKED, bits=100, strength=0.1, rate=0.05)
    attacked = settings(network(), PICTURES, seed=5)
    assert found(attacked, settings.key(5)).log10_p < -9
    assert found(attacked, settings.key(5), "one").log10_p > -4


def test_many_keys_at_once_are_each_pushed_as_far_as_one():
    one, four = (Overwriting("keyed", MARKED, bits=16, keys=keys) for keys in (1, 4))
    assert [(each.key(1).bits, each.key(1).groups) for each in (one, four)] == [
        (16, 16),
        (64, 64),
    ]
    model = network()
    four._attach(model, four.key(1))
    (mark,) = find_marked_layers(model)
    # 0.17 sqrt(N / T), for the 1,152 weights and the 16 bits of a single key.
    assert mark.regularizer.margin == pytest.approx(0.17 * (1152 / 16) ** 0.5)


def test_rounds_go_on_with_other_keys():
    settings = Overwriting("keyed", MARKED, bits=32, strength=0.1, rate=0.05, rounds=3)
    attacked = settings(network(), PICTURES, seed=5)
    p = [found(attacked, settings.key(5, number)).log10_p for number in range(3)]
    assert p[2] < -9
    assert len({settings.key(5, number).commitment for number in range(3)}) == 3


@pytest.mark.backends
def test_it_follows_its_seed_and_leaves_no_penalty():
    attack = overwriting("keyed", MARKED, "bits")
    model = network()
    first, again = (attack(model, PICTURES, 64, seed=1) for _ in range(2))
    kernel = f"{MARKED}/kernel"
    np.testing.assert_allclose(arrays(first)[kernel], arrays(again)[kernel], atol=1e-5)
    assert find_marked_layers(first) == find_marked_layers(model) == []


@pytest.mark.parametrize("varied", ["strength", "rate", "bits", "keys", "rounds"])
def test_what_is_varied_is_the_strength_of_the_attack(varied, monkeypatch):
    taken = []
    monkeypatch.setattr(
        Overwriting,
        "__call__",
        lambda self, model, data, seed: taken.append(self) or model,
    )
    attack, model = overwriting("keyed", MARKED, varied), network()
    for strength in attack.strengths:
        attack.change(model, None, strength, 0)
    assert [getattr(one, varied) for one in taken] == list(attack.strengths)
    assert {one.layer for one in taken} == {MARKED}


@pytest.mark.parametrize("wrong", [{"filters": "all"}, {"varied": "seed"}])
def test_what_is_no_mark_or_setting_is_refused(wrong):
    with pytest.raises(ValueError, match=r"Expected one of .* Received"):
        overwriting(**{"filters": "mean", **wrong})


def test_a_layer_that_is_missing_or_too_small_is_told():
    model = network()
    with pytest.raises(ValueError, match=r"no layer 'seven'.*'three'"):
        overwriting("keyed", "seven")(model, PICTURES)
    with pytest.raises(ValueError, match=r"Too many bits.*T=1024.*M=16"):
        overwriting("mean", HEAD, "bits")(model, PICTURES)
    with pytest.raises(ValueError, match=r"No layer of .* attacker's 1024 bits"):
        overwriting("mean", varied="bits")(model, PICTURES)


@pytest.mark.parametrize(
    ("layer", "bits"), [(HEAD, 16), ("one", 16), (MARKED, 128), (None, 128)]
)
def test_a_small_layer_gets_fewer_bits(layer, bits):
    """The mean filters have 16, 9 and 72 weights: room for less than twice the bits."""
    assert Overwriting("mean", layer).shortened(network()).bits == bits
    assert Overwriting("mean", layer, bits=8).shortened(network()).bits == 8
