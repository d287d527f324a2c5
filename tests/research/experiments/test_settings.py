"""Settings that all runs of a study share."""

import pytest

from keras_wm.research.experiments import Settings


def test_on_cifar_the_settings_are_the_papers():
    settings = Settings("cifar10")
    assert (settings.training_epochs, settings.batch_size) == (200, 64)
    assert settings.title == "cifar10, WRN-10-4, 200 epochs"
    # Section 4.1 of Uchida et al.: 10 degrees, 5 of 32 pixels, flips.
    limits = settings.augmentation
    assert (limits.rotation, 32 * limits.translation, limits.flip) == (10, 5, True)
    assert {settings.strength(mark) for mark in ("direct", "diff", "random")} == {0.01}


def test_the_random_mark_has_the_strength_of_the_papers_on_the_digits_too():
    assert Settings().strength("random") == 0.01


@pytest.mark.parametrize(
    "options, message",
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
def test_impossible_settings_are_an_error_before_any_training(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(**options)


def test_as_many_bits_as_fit_are_accepted():
    assert Settings(bits=576, marks=("direct", "random")).bits == 576
    assert Settings(bits=288, marks=("diff",)).bits == 288


def test_by_default_each_mark_has_the_number_of_bits_of_its_authors():
    default, given = Settings(), Settings(bits=96)
    assert [default.bits_of(mark) for mark in ("random", "default")] == [256, 64]
    assert {given.bits_of(mark) for mark in ("random", "default")} == {96}
    assert default.host != Settings(bits=256).host


def test_a_data_file_is_identified_by_its_name_and_not_by_its_folder(tmp_path):
    first, second = (Settings(str(tmp_path / folder / "x.npz")) for folder in "ab")
    assert first.host == second.host
    assert str(tmp_path) not in str(first.host)


def test_the_new_settings_do_not_change_what_older_results_name():
    assert not {"optimizer", "decoupled"} & set(Settings().host)
    host = Settings(optimizer="adam", decoupled=True).host
    assert (host["optimizer"], host["decoupled"]) == ("adam", True)


def test_decoupled_marks_are_left_to_the_callback():
    settings = Settings(decoupled=True)
    assert settings.strength("default") is None
    assert settings.strength("random") == 0.01


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match=r"'papers', 'adam'.*optimizer='sgd'"):
        Settings(optimizer="sgd")
