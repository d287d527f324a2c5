"""`keras-wm slmc`: output, files and error messages of its commands."""

import json
import zipfile

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_wm.cli import app
from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.learning import fit
from keras_wm.slmc.learning.scaling import Point, power_law
from keras_wm.slmc.models.effective_model import effective_model, set_linear
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


def printed(result, title):
    """Returns the number after a title."""
    (line,) = (line for line in result.output.splitlines() if title in line)
    return float(line.split(title)[1].replace("│", " ").split()[0])


def test_sample_writes_series_and_prints_their_means(tmp_path):
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


def test_sample_uses_the_given_parameters(tmp_path):
    path = tmp_path / "run.npz"
    slmc(
        *["sample", "--size", 2, "--beta", 3, "--mu", 0.4, "-J", 2.5, "-t", 0.7],
        *["--by", "metropolis", "--chains", 4, "--steps", 2, "--thermalise", 0],
        *["--spins", "--out", path],
    )
    series = read_series(path)
    model = DoubleExchange(square_lattice(2), 3.0, 0.4, 2.5, 0.7)
    np.testing.assert_allclose(series["log_weight"], model.log_weight(series["spins"]))


@pytest.mark.study
def test_a_model_is_trained_on_samples_and_then_proposes(tmp_path, monkeypatch):
    # XLA takes longer to compile than this fit runs.
    monkeypatch.setattr(fit, "JIT_COMPILE", False)
    samples, model = tmp_path / "run.npz", tmp_path / "model.keras"
    slmc(
        *["sample", *SMALL, "--by", "linear", "--chains", 64, "--steps", 4],
        *["--thermalise", 2, "--sweeps", 2, "--spins", "--out", samples],
    )
    trained = slmc(
        *["train", *SMALL, "--shells", 2, "--blocks", 1, "--epochs", 2],
        *["--samples", samples, "--out", model],
    )
    assert "fitted to 224 samples" in trained.output
    assert keras.saving.load_model(model).count_params() == 3 * 3 + 3
    result = slmc(
        *["sample", *SMALL, "--by", model, "--chains", 8, "--steps", 5],
        *["--thermalise", 2, "--sweeps", 1, "--out", tmp_path / "by.npz"],
    )
    assert 0 < printed(result, "│ acceptance  ") <= 1


@pytest.mark.study
def test_a_model_is_trained_online(tmp_path):
    out = tmp_path / "model.keras"
    result = slmc("train", *SMALL, *QUICK, "--shells", 2, "--blocks", 1, "--out", out)
    assert result.exit_code == 0
    assert len(keras.saving.load_model(out).layers) == 3


@pytest.mark.study
def test_scale_writes_points_and_a_plot(tmp_path):
    words = ["scale", *SMALL, *QUICK, "--shells", 2, "--blocks", 2, "--seeds", 1]
    words += ["--out", tmp_path]
    result = slmc(*words)
    file = tmp_path / "points.jsonl"
    header, line = file.read_text().splitlines()
    training = json.loads(line)
    points = [Point.from_dict(values) for values in training["points"]]
    assert [point.parameters for point in points] == [3, 12, 21]
    law = power_law(points)
    assert f"parameters^({law.exponent:.2f} ± {law.error:.2f}), all" in result.output
    assert (tmp_path / "scaling.png").stat().st_size > 1000
    # Existing trainings are not repeated, nor mixed with other settings.
    training["points"][0]["variance"] = 123.0
    file.write_text(f"{header}\n{json.dumps(training)}\n")
    assert "123.0" in slmc(*words).output
    with pytest.raises(ValueError, match=r"learning_rate: expected 0.5, received"):
        slmc(*words, "--learning-rate", 0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "6y6"], "Expected the size of a lattice, such as 6 or 6x8"),
        (["--size", "1"], "at least two sites in each direction"),
        (["--beta", "-2"], "positive inverse temperature"),
        (["--by", "nothing.keras"], "'metropolis', 'linear' or a file"),
    ],
)
def test_invalid_options_of_sample_raise_an_error(words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        slmc("sample", *words, "--out", tmp_path / "run.npz")
    assert not list(tmp_path.iterdir())


def test_another_kind_of_model_raises_an_error(tmp_path):
    path = tmp_path / "other.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(ValueError, match=r"not an effective model.*no layer 'readout'"):
        slmc("sample", *SMALL, "--by", path, "--out", tmp_path / "run.npz")


def test_training_on_a_file_without_spins_raises_an_error(tmp_path):
    path = tmp_path / "run.npz"
    slmc(
        *["sample", *SMALL, "--by", "metropolis", "--chains", 2, "--steps", 2],
        *["--thermalise", 0, "--out", path],
    )
    for file, message in ((path, "Sample with --spins"), (__file__, "cannot be read")):
        with pytest.raises(ValueError, match=message):
            slmc("train", *SMALL, "--samples", file, "--out", tmp_path / "m.keras")


def test_training_on_samples_of_another_model_raises_an_error(tmp_path):
    path = tmp_path / "run.npz"
    slmc(
        *["sample", *SMALL, "--by", "metropolis", "--chains", 9, "--steps", 2],
        *["--thermalise", 0, "--spins", "--out", path],
    )
    for options in (["--size", "4x2", "--beta", 4], [*SMALL, "--mu", 1]):
        with pytest.raises(ValueError, match="samples of another model"):
            slmc("train", *options, "--samples", path, "--out", tmp_path / "m.keras")


@pytest.mark.parametrize("out", ["model.h5", "missing/model.keras"])
def test_an_invalid_output_file_raises_an_error_before_training(out, tmp_path):
    with pytest.raises(ValueError, match=r"suffix .keras, in a folder that exists"):
        slmc("train", *SMALL, "--out", tmp_path / out)


@pytest.mark.parametrize("chains", [1, pytest.param(3, marks=pytest.mark.study), 16])
def test_the_printed_error_is_right_for_few_chains(chains, tmp_path):
    """Independent spins have a known variance of m2, hence a known error."""
    words = ["sample", "--size", 2, "--beta", 1e-3, "--by", "metropolis"]
    words += ["--chains", chains, "--steps", 48, "--thermalise", 30]
    # The variance of m2 is 2 (N - 1) / (3 N^3) for N = 4 spins.
    expected = np.sqrt(2 / 64 / (48 * chains))
    errors = []
    for seed in range(6):
        result = slmc(*words, "--seed", seed, "--out", tmp_path / f"{seed}.npz")
        (line,) = (row for row in result.output.splitlines() if "staggered" in row)
        errors.append(float(line.split("│")[3]))
    # Steps are slightly correlated. With 16 blocks, each error is known to 18 %.
    assert 0.8 * expected < np.sqrt(np.mean(np.square(errors))) < 1.8 * expected
    assert min(errors) > 0.4 * expected


def test_a_low_acceptance_and_a_short_run_give_warnings(tmp_path):
    path = tmp_path / "effective.keras"
    model = effective_model(square_lattice(2, 4), 1)
    set_linear(model, LinearModel(square_lattice(2, 4), np.array([9.0])))
    model.save(path)
    words = ["sample", "--size", "2x4", "--chains", 8, "--steps", 20]
    words += ["--thermalise", 20, "--sweeps", 1]
    bad = slmc(*words, "--beta", 40, "--by", path, "--out", tmp_path / "bad.npz")
    assert "no mean can be trusted" in bad.output
    good = slmc(*words, "--beta", 1, "--by", "linear", "--out", tmp_path / "good.npz")
    assert "no mean can be trusted" not in good.output
    # 20 steps are less than 50 autocorrelation times of at least one step.
    assert "too short to estimate" in good.output


def test_a_run_resumes_with_the_same_seed_only(tmp_path):
    words = ["sample", *SMALL, "--by", "metropolis", "--chains", 2, "--steps", 2]
    out = ["--out", tmp_path / "run.npz"]
    first = slmc(*words, "--seed", 1, *out).output
    assert slmc(*words, "--seed", 1, *out).output.split("2 steps")[0] in first
    with pytest.raises(ValueError, match="checkpoint of other chains"):
        slmc(*words, "--seed", 2, *out)


def test_a_resumed_run_with_a_linear_model_gives_the_same_chains(tmp_path):
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


def test_a_checkpoint_of_a_larger_lattice_raises_an_error(tmp_path):
    words = ["sample", "--beta", 4, "--by", "linear", "--chains", 2, "--steps", 1]
    words += ["--thermalise", 0, "--out", tmp_path / "run.npz"]
    slmc(*words, "--size", "2x4")
    with pytest.raises(ValueError, match="checkpoint of other chains"):
        slmc(*words, "--size", 2)


def test_a_damaged_model_raises_an_error(tmp_path):
    path = tmp_path / "effective.keras"
    for content in (b"", b"PK nothing", None):
        if content is None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("other.txt", "nothing")
        else:
            path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged, or not a model"):
            slmc("sample", *SMALL, "--by", path, "--out", tmp_path / "run.npz")
