"""All attacks by name."""

import pytest

from keras_wm.research.attacks.catalogue import attacks, families
from tests.research.attacks.trained import MARKED, network

MODEL = network()
CATALOGUE = attacks(MARKED, [MODEL])


def test_every_attack_has_a_name_of_its_own():
    listed = [one for family in families(MARKED, [MODEL]).values() for one in family]
    assert len(CATALOGUE) == len(listed)
    assert all(CATALOGUE[one.name] is not None for one in listed)


def test_families_are_complete():
    assert set(families(MARKED, [MODEL])) - set(families(MARKED)) == {"collusion"}
    assert set(attacks()) == set(attacks(MARKED))


@pytest.mark.parametrize("attack", CATALOGUE.values(), ids=lambda one: one.name)
def test_strengths_go_from_the_weakest_to_the_strongest(attack):
    strengths = list(attack.strengths)
    assert strengths in (sorted(strengths), sorted(strengths, reverse=True))
    assert attack.title.endswith(".") and attack.unit


@pytest.mark.parametrize("attack", CATALOGUE.values(), ids=lambda one: one.name)
def test_data_are_asked_for_by_those_that_train(attack):
    if attack.needs_data:
        with pytest.raises(ValueError, match="data to train on"):
            attack(MODEL)
    else:
        # The weakest of it does without.
        assert attack(MODEL, strength=attack.strengths[0]) is not MODEL


def test_the_named_layer_is_the_one_that_is_aimed_at():
    aiming = families(MARKED)["overwriting"] + families(MARKED)["adaptive"]
    assert all(repr(MARKED) in one.title for one in aiming)
    assert all("every layer" in attacks()[one.name].title for one in aiming)
