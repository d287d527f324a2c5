"""Runs that are interrupted, and go on as if nothing had happened."""

import numpy as np
import pytest

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.models.effective_model import effective_model
from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.slmc.samplers.chain import run
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.metropolis import Metropolis
from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
from keras_wm.slmc.samplers.self_learning import SelfLearning

MODEL = DoubleExchange(square_lattice(3, 4), beta=6.0)
LINEAR = LinearModel(MODEL.lattice, np.array([-0.1, 0.05]))
NEURAL = effective_model(square_lattice(3, 4), shells=2, blocks=1)
SAMPLERS = {
    "metropolis": lambda: Metropolis(MODEL, 4, seed=1),
    "heat bath": lambda: SelfLearning(MODEL, HeatBath(LINEAR, 2), 4, seed=1),
    "attention": lambda: SelfLearning(MODEL, NeuralMetropolis(NEURAL, 1), 4, seed=1),
}


class Killed(BaseException):
    """What ends a run from outside."""


def interrupted(sampler, after):
    """The sampler, whose process is killed after so many steps."""
    advance, steps = sampler.advance, iter(range(after))

    def once(thermalising=False):
        if next(steps, None) is None:
            raise Killed
        advance(thermalising)

    sampler.advance = once
    return sampler


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("killed_after", [4, 9])
def test_a_killed_run_goes_on_to_the_same_chain_bit_for_bit(
    kind, killed_after, tmp_path
):
    make = SAMPLERS[kind]
    whole = run(make(), 8, thermalisation=4)
    path = tmp_path / "chain.npz"
    options = {"thermalisation": 4, "checkpoint": path, "interval": 3}
    with pytest.raises(Killed):
        run(interrupted(make(), killed_after), 8, **options)
    # Steps 1 to 3, or 1 to 9, are kept: less than one interval is lost.
    went_on = interrupted(make(), 12 - killed_after // 3 * 3)
    series = run(went_on, 8, **options)
    assert list(series) == list(whole)
    for name, values in whole.items():
        assert values.shape[:2] == (8, 4)
        np.testing.assert_array_equal(series[name], values)


def test_a_finished_run_is_read_and_can_be_made_longer(tmp_path):
    path = tmp_path / "chain.npz"
    make = SAMPLERS["heat bath"]
    short = run(make(), 5, checkpoint=path)
    again = run(interrupted(make(), 0), 5, checkpoint=path)
    np.testing.assert_array_equal(again["m2"], short["m2"])
    longer = run(make(), 9, checkpoint=path)
    np.testing.assert_array_equal(longer["m2"], run(make(), 9)["m2"])


def test_numbers_of_numpy_are_like_others(tmp_path):
    path = tmp_path / "chain.npz"
    made = Metropolis(MODEL, np.int64(3), (np.int32(1), 2))
    kept = run(made, np.int64(4), checkpoint=path)
    again = run(Metropolis(MODEL, 3, (1, 2)), 4, checkpoint=path)
    np.testing.assert_array_equal(again["energy"], kept["energy"])


def test_chains_of_one_seed_are_the_same_and_of_another_not():
    series = [run(Metropolis(MODEL, 3, seed), 5)["energy"] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(series[0], series[1])
    assert np.all(series[0] != series[2])
    # Nor are those beside each other.
    assert np.all(series[0][:, 0] != series[0][:, 1])


def test_what_is_measured_is_what_the_spins_give():
    chain = SAMPLERS["heat bath"]()
    series = run(chain, 3)
    log_weight = MODEL.log_weight(chain.spins)
    np.testing.assert_allclose(series["log_weight"][-1], log_weight)
    np.testing.assert_allclose(
        series["delta"][-1], log_weight - LINEAR.log_weight(chain.spins)
    )
    np.testing.assert_allclose(
        series["ms2"][-1],
        [
            sum((-1) ** (i // 4 + i % 4) * spin for i, spin in enumerate(spins)).dot(
                sum((-1) ** (i // 4 + i % 4) * spin for i, spin in enumerate(spins))
            )
            / 144
            for spins in chain.spins
        ],
    )


@pytest.mark.parametrize(
    "other",
    [
        lambda: Metropolis(DoubleExchange(square_lattice(3, 4), beta=7.0), 4, seed=1),
        lambda: Metropolis(MODEL, 5, seed=1),
        lambda: Metropolis(MODEL, 4, seed=2),
        lambda: SelfLearning(MODEL, HeatBath(LINEAR, 2), 4, seed=1),
    ],
)
def test_a_checkpoint_of_other_chains_is_refused_and_kept(other, tmp_path):
    path = tmp_path / "chain.npz"
    run(SAMPLERS["metropolis"](), 2, checkpoint=path)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="checkpoint of other chains"):
        run(other(), 4, checkpoint=path)
    assert path.read_bytes() == kept


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"thermalisation": -2}, {"interval": 0}]
)
def test_numbers_of_steps_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="numbers of steps"):
        run(SAMPLERS["metropolis"](), **({"steps": 1} | wrong))


@pytest.mark.parametrize(
    "content", [b"", b"PK nothing", None], ids=["empty", "damaged", "an array"]
)
def test_a_file_that_is_no_checkpoint_is_refused_and_kept(content, tmp_path):
    path = tmp_path / "chain.npz"
    if content is None:
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    else:
        path.write_bytes(content)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="cannot be read"):
        run(SAMPLERS["metropolis"](), 4, checkpoint=path)
    assert path.read_bytes() == kept


def test_a_missing_folder_is_told_before_anything_is_sampled(tmp_path):
    sampler = interrupted(SAMPLERS["metropolis"](), 0)
    with pytest.raises(FileNotFoundError, match="no folder"):
        run(sampler, 4, checkpoint=tmp_path / "missing" / "chain.npz")
