"""The catalogue of all attacks."""

import pytest

from keras_wm.research.attacks.catalogue import attacks, families, select_families

LAYER = "three"


@pytest.fixture(scope="module")
def by_family():
    """All families; the attacks are not run, so anything can be a copy."""
    return families(LAYER, copies=["a copy"])


@pytest.fixture(scope="module")
def all_attacks(by_family):
    return [attack for family in by_family.values() for attack in family]


def test_attacks_have_unique_names(all_attacks):
    by_name = attacks(LAYER, copies=["a copy"])
    assert set(by_name) == {attack.name for attack in all_attacks}
    assert len(by_name) == len(all_attacks)
    assert all(name == attack.name for name, attack in by_name.items())


def test_collusion_is_the_only_family_that_needs_copies(by_family):
    assert set(by_family) - set(families(LAYER)) == {"collusion"}
    assert set(attacks()) == set(attacks(LAYER))


def test_strengths_are_sorted_and_attacks_described(all_attacks):
    for attack in all_attacks:
        strengths = list(attack.strengths)
        assert strengths in (sorted(strengths), sorted(strengths)[::-1]), attack.name
        assert attack.title.endswith(".") and attack.unit, attack.name


def test_attacks_that_train_require_data(all_attacks):
    training = [attack for attack in all_attacks if attack.needs_data]
    assert len(training) > 20
    for attack in training:
        with pytest.raises(ValueError, match=f"'{attack.name}' trains.*data to train"):
            attack("a model")


def test_the_named_layer_is_the_target():
    targeted = families(LAYER)["overwriting"] + families(LAYER)["adaptive"]
    assert all(repr(LAYER) in attack.title for attack in targeted)
    assert all("every layer" in attacks()[attack.name].title for attack in targeted)


def test_families_are_selected_by_name(by_family):
    chosen = select_families(by_family, ["export", "pruning"])
    assert list(chosen) == ["pruning", "export"]
    assert select_families(by_family, None) == by_family
    with pytest.raises(ValueError, match=r"among fine-tuning, .*Received: magic"):
        select_families(by_family, ["magic"])
