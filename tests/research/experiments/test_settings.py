"""What all runs of a study share."""

import pytest

from keras_wm.research.experiments import Settings


def test_on_cifar_the_settings_are_the_papers():
    settings = Settings("cifar10")
    assert (settings.training_epochs, settings.batch_size) == (200, 64)
    assert settings.title == "cifar10, WRN-10-4, 200 epochs"
    # Section 4.1 of Uchida et al.: 10 degrees, 5 pixels of 32, mirrored.
    distortion = settings.distortion
    assert (distortion.turn, 32 * distortion.shift, distortion.mirror) == (10, 5, True)
    assert {settings.strength(mark) for mark in ("direct", "diff", "random")} == {0.01}


def test_the_random_mark_has_the_papers_strength_on_the_digits_too():
    assert Settings().strength("random") == 0.01


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        ({"epochs": 0}, "epochs >= 1"),
        ({"seeds": -1}, "seeds >= 1"),
        ({"bits": 0}, "bits >= 1"),
        ({"group": 5}, "group 2, 3 or 4"),
        ({"weight_decay": -1e-4}, "weight_decay=-0.0001"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
        ({"marks": ("random", "raindom")}, "raindom"),
        # M = 9 x 64 in the second convolution of group 2.
        ({"bits": 577, "marks": ("direct",)}, "M=576"),
        ({"bits": 289, "marks": ("diff",)}, "M=576"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        Settings(**wrong)


def test_as_many_bits_as_fit_are_accepted():
    assert Settings(bits=576, marks=("direct", "random")).bits == 576
    assert Settings(bits=288, marks=("diff",)).bits == 288


def test_each_mark_has_as_many_bits_as_its_authors_give_it_unless_told():
    usual, told = Settings(), Settings(bits=96)
    assert [usual.bits_of(mark) for mark in ("random", "default")] == [256, 64]
    assert {told.bits_of(mark) for mark in ("random", "default")} == {96}
    assert usual.host != Settings(bits=256).host


def test_a_study_is_known_by_its_datas_name_and_not_by_where_it_is(tmp_path):
    here, there = (Settings(str(tmp_path / one / "x.npz")) for one in "ab")
    assert here.host == there.host
    assert str(tmp_path) not in str(here.host)
