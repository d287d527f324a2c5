"""`keras-wm slmc`: what a physicist types, and what comes back."""

import json
import zipfile

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_wm.cli import app
from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.learning.fit import set_linear
from keras_wm.slmc.learning.scaling import Point, power_law
from keras_wm.slmc.models.effective_model import effective_model
from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.slmc.observables import (
    shell_correlations,
    squared_staggered_magnetisation,
)
from keras_wm.slmc.samplers.chain import read_series

SMALL = ["--size", "2x4", "--beta", "4"]
QUICK = ["--chains", "64", "--proposals", "4", "--epochs", "2"]


def slmc(*words):
    return CliRunner().invoke(app, ["slmc", *map(str, words)], catch_exceptions=False)


def printed(result, line):
    """The number behind a title."""
    (found,) = (each for each in result.output.splitlines() if line in each)
    return float(found.split(line)[1].replace("│", " ").split()[0])


def test_samples_are_kept_and_their_means_printed(tmp_path):
    path = tmp_path / "run.npz"
    result = slmc(
        *["sample", *SMALL, "--by", "metropolis", "--chains", 8, "--steps", 30],
        *["--thermalise", 5, "--spins", "--out", path],
    )
    assert result.exit_code == 0
    series = read_series(path)
    assert series["spins"].shape == (30, 8, 8, 3)
    lattice = square_lattice(2, 4)
    staggered = squared_staggered_magnetisation(series["spins"], lattice)
    np.testing.assert_allclose(series["ms2"], staggered)
    assert printed(result, "staggered m²") == pytest.approx(staggered.mean(), rel=1e-5)
    log_weight = DoubleExchange(lattice, 4.0).log_weight(series["spins"])
    np.testing.assert_allclose(series["log_weight"], log_weight)
    correlations = shell_correlations(series["spins"], lattice).mean(axis=(0, 1))
    for shell, expected in zip(lattice.shells, correlations, strict=True):
        line = f"│ {shell.squared_distance}                │ {shell.coordination}     │"
        assert printed(result, line) == pytest.approx(expected, rel=1e-5)


def test_parameters_of_the_model_are_taken(tmp_path):
    path = tmp_path / "run.npz"
    slmc(
        *["sample", "--size", 2, "--beta", 3, "--mu", 0.4, "-J", 2.5, "-t", 0.7],
        *["--by", "metropolis", "--chains", 4, "--steps", 2, "--thermalise", 0],
        *["--spins", "--out", path],
    )
    series = read_series(path)
    model = DoubleExchange(square_lattice(2), 3.0, 0.4, 2.5, 0.7)
    np.testing.assert_allclose(series["log_weight"], model.log_weight(series["spins"]))


def test_a_model_is_trained_from_samples_and_proposes(tmp_path):
    samples, model = tmp_path / "run.npz", tmp_path / "model.keras"
    slmc(
        *["sample", *SMALL, "--by", "linear", "--chains", 64, "--steps", 10],
        *["--thermalise", 2, "--sweeps", 2, "--spins", "--out", samples],
    )
    trained = slmc(
        *["train", *SMALL, "--shells", 2, "--blocks", 1, "--epochs", 2],
        *["--samples", samples, "--out", model],
    )
    assert "fitted to 560 samples" in trained.output
    assert keras.saving.load_model(model).count_params() == 3 * 3 + 3
    result = slmc(
        *["sample", *SMALL, "--by", model, "--chains", 8, "--steps", 5],
        *["--thermalise", 2, "--sweeps", 1, "--out", tmp_path / "by.npz"],
    )
    assert 0 < printed(result, "acceptance  ") <= 1


def test_a_model_is_trained_while_it_samples(tmp_path):
    out = tmp_path / "model.keras"
    result = slmc("train", *SMALL, *QUICK, "--shells", 2, "--blocks", 1, "--out", out)
    assert result.exit_code == 0
    assert len(keras.saving.load_model(out).layers) == 3


def test_how_it_scales_is_told_in_points_and_a_picture(tmp_path):
    result = slmc(
        *["scale", *SMALL, *QUICK, "--shells", 2, "--blocks", 2, "--seeds", 1],
        *["--out", tmp_path],
    )
    header, line = (tmp_path / "points.jsonl").read_text().splitlines()
    training = json.loads(line)
    points = [Point.from_dict(values) for values in training["points"]]
    assert [one.parameters for one in points] == [3, 12, 21]
    law = power_law(points)
    assert f"parameters^({law.exponent:.2f} ± {law.error:.2f}), all" in result.output
    assert (tmp_path / "scaling.png").stat().st_size > 1000
    # What is there is not trained again, nor mixed with something else.
    training["points"][0]["variance"] = 123.0
    (tmp_path / "points.jsonl").write_text(f"{header}\n{json.dumps(training)}\n")
    words = ["scale", *SMALL, *QUICK, "--shells", 2, "--blocks", 2, "--seeds", 1]
    assert "123.0" in slmc(*words, "--out", tmp_path).output
    with pytest.raises(ValueError, match=r"learning_rate: expected 0.5, received"):
        slmc(*words, "--learning-rate", 0.5, "--out", tmp_path)


def test_a_power_law_is_the_slope_of_the_logarithms():
    found = [
        Point(seed, blocks, size, 5.0 * size**-1.5, 0.1, 0.5, 0.1)
        for seed in range(2)
        for blocks, size in enumerate((7, 28, 49, 70))
    ]
    law = power_law(found)
    assert law.exponent == pytest.approx(-1.5)
    assert law.factor == pytest.approx(5.0)
    assert law.error == pytest.approx(0.0, abs=1e-6)
    # The linear model is no part of the law.
    spoilt = [Point(0, 0, 7, 100.0, 0.1, 0.1, 0.1), *found[1:]]
    assert power_law(spoilt, fewest_blocks=1).exponent == pytest.approx(-1.5)
    with pytest.raises(ValueError, match="three models or more"):
        power_law(found, fewest_blocks=3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "6y6"], "Expected the size of a lattice, such as 6 or 6x8"),
        (["--size", "1"], "two sites or more in each direction"),
        (["--beta", "-2"], "positive inverse temperature"),
        (["--by", "nothing.keras"], "'metropolis', 'linear' or a file"),
    ],
)
def test_what_cannot_be_sampled_is_refused(words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        slmc("sample", *words, "--out", tmp_path / "run.npz")
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_no_effective_one_is_refused(tmp_path):
    path = tmp_path / "other.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(ValueError, match=r"no effective model.*no layer 'readout'"):
        slmc("sample", *SMALL, "--by", path, "--out", tmp_path / "run.npz")


def test_samples_without_spins_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    slmc(
        *["sample", *SMALL, "--by", "metropolis", "--chains", 2, "--steps", 2],
        *["--thermalise", 0, "--out", path],
    )
    for file, message in ((path, "Sample with --spins"), (__file__, "cannot be read")):
        with pytest.raises(ValueError, match=message):
            slmc("train", *SMALL, "--samples", file, "--out", tmp_path / "m.keras")


def test_samples_of_another_model_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    slmc(
        *["sample", *SMALL, "--by", "metropolis", "--chains", 9, "--steps", 2],
        *["--thermalise", 0, "--spins", "--out", path],
    )
    for other in (["--size", "4x2", "--beta", 4], [*SMALL, "--mu", 1]):
        with pytest.raises(ValueError, match="samples of another model"):
            slmc("train", *other, "--samples", path, "--out", tmp_path / "m.keras")


@pytest.mark.parametrize("out", ["model.h5", "missing/model.keras"])
def test_a_place_for_a_model_is_looked_at_first(out, tmp_path):
    with pytest.raises(ValueError, match=r"suffix .keras, in a folder"):
        slmc("train", *SMALL, "--out", tmp_path / out)


@pytest.mark.parametrize("chains", [1, 2, 3, 16])
def test_few_chains_tell_how_far_their_mean_is_off(chains, tmp_path):
    """Of hot spins the variance is known, and with it the error of every mean."""
    words = ["sample", "--size", 2, "--beta", 1e-3, "--by", "metropolis"]
    words += ["--chains", chains, "--steps", 48, "--thermalise", 30]
    # Of N = 4 independent spins m2 has the variance 2 (N - 1) / 3 N^3.
    expected = np.sqrt(2 / 64 / (48 * chains))
    errors = []
    for seed in range(6):
        result = slmc(*words, "--seed", seed, "--out", tmp_path / f"{seed}.npz")
        (line,) = (one for one in result.output.splitlines() if "staggered" in one)
        errors.append(float(line.split("│")[3]))
    # Steps hang together a little. Of 16 blocks each error is known to 18 %.
    assert 0.8 * expected < np.sqrt(np.mean(np.square(errors))) < 1.8 * expected
    assert min(errors) > 0.4 * expected


def test_a_model_that_fits_nothing_is_warned_of(tmp_path):
    path = tmp_path / "effective.keras"
    made = effective_model(square_lattice(2, 4), 1)
    set_linear(made, LinearModel(square_lattice(2, 4), np.array([9.0])))
    made.save(path)
    words = ["sample", "--size", "2x4", "--chains", 8, "--steps", 20]
    words += ["--thermalise", 20, "--sweeps", 1]
    bad = slmc(*words, "--beta", 40, "--by", path, "--out", tmp_path / "bad.npz")
    assert "no mean can be trusted" in bad.output
    good = slmc(*words, "--beta", 1, "--by", "linear", "--out", tmp_path / "good.npz")
    assert "no mean can be trusted" not in good.output
    # Fifty times an autocorrelation time are at least as many steps.
    assert "too short to estimate" in good.output


def test_another_seed_does_not_go_on_in_the_chains_of_the_first(tmp_path):
    words = ["sample", *SMALL, "--by", "metropolis", "--chains", 2, "--steps", 2]
    out = ["--out", tmp_path / "run.npz"]
    first = slmc(*words, "--seed", 1, *out).output
    assert slmc(*words, "--seed", 1, *out).output.split("2 steps")[0] in first
    with pytest.raises(ValueError, match="checkpoint of other chains"):
        slmc(*words, "--seed", 2, *out)


def test_a_run_by_a_linear_model_goes_on_to_the_same_chains(tmp_path):
    words = ["sample", *SMALL, "--by", "linear", "--chains", 8, "--sweeps", 2]
    words += ["--thermalise", 1]
    stopped, whole = tmp_path / "stopped.npz", tmp_path / "whole.npz"
    slmc(*words, "--steps", 3, "--out", stopped)
    slmc(*words, "--steps", 6, "--out", stopped)
    slmc(*words, "--steps", 6, "--out", whole)
    series = read_series(stopped)
    for name, expected in read_series(whole).items():
        np.testing.assert_array_equal(series[name], expected, name)
    assert np.ptp(series["delta"]) > 0


def test_a_checkpoint_of_a_larger_lattice_is_refused(tmp_path):
    words = ["sample", "--beta", 4, "--by", "linear", "--chains", 2, "--steps", 1]
    words += ["--thermalise", 0, "--out", tmp_path / "run.npz"]
    slmc(*words, "--size", 4)
    with pytest.raises(ValueError, match="checkpoint of other chains"):
        slmc(*words, "--size", 2)


def test_a_damaged_model_is_refused(tmp_path):
    path = tmp_path / "effective.keras"
    for content in (b"", b"PK nothing", None):
        if content is None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("other.txt", "nothing")
        else:
            path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged, or not a model"):
            slmc("sample", *SMALL, "--by", path, "--out", tmp_path / "run.npz")
