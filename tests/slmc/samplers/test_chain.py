"""Runs that are interrupted and resumed give the same chains."""

from copy import copy
from functools import cache

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


@cache
def neural_proposal():
    model = effective_model(MODEL.lattice, shells=2, blocks=1)
    return NeuralMetropolis(model, 1)


# A copy of a proposal has its own step size, and shares the compiled updates.
SAMPLERS = {
    "metropolis": lambda: Metropolis(MODEL, 4, seed=1),
    "heat bath": lambda: SelfLearning(MODEL, HeatBath(LINEAR, 2), 4, seed=1),
    "attention": lambda: SelfLearning(MODEL, copy(neural_proposal()), 4, seed=1),
}


@cache
def uninterrupted(kind):
    """Series of 8 steps after 4 thermalisation steps."""
    return run(SAMPLERS[kind](), 8, thermalisation=4)


class KilledError(BaseException):
    """Stands for a signal that ends the process."""


def interrupted(sampler, after):
    """Makes the sampler fail after a number of steps."""
    advance, steps = sampler.advance, iter(range(after))

    def once(thermalising=False):
        if next(steps, None) is None:
            raise KilledError
        advance(thermalising)

    sampler.advance = once
    return sampler


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("killed_after", [4, 9])
def test_a_resumed_run_gives_the_same_chains_bit_for_bit(kind, killed_after, tmp_path):
    make, expected = SAMPLERS[kind], uninterrupted(kind)
    path = tmp_path / "chain.npz"
    options = {"thermalisation": 4, "checkpoint": path, "interval": 3}
    with pytest.raises(KilledError):
        run(interrupted(make(), killed_after), 8, **options)
    # The checkpoint has 3 or 9 steps: less than one interval is lost.
    resumed = interrupted(make(), 12 - killed_after // 3 * 3)
    series = run(resumed, 8, **options)
    assert list(series) == list(expected)
    for name, values in expected.items():
        assert values.shape[:2] == (8, 4)
        np.testing.assert_array_equal(series[name], values)


def test_a_finished_run_is_not_repeated_and_can_be_continued(tmp_path):
    path = tmp_path / "chain.npz"
    make = SAMPLERS["heat bath"]
    short = run(make(), 5, checkpoint=path)
    again = run(interrupted(make(), 0), 5, checkpoint=path)
    np.testing.assert_array_equal(again["m2"], short["m2"])
    longer = run(make(), 9, checkpoint=path)
    np.testing.assert_array_equal(longer["m2"], run(make(), 9)["m2"])


def test_numpy_integers_give_the_same_checkpoint(tmp_path):
    path = tmp_path / "chain.npz"
    sampler = Metropolis(MODEL, np.int64(3), (np.int32(1), 2))
    first = run(sampler, np.int64(4), checkpoint=path)
    again = run(Metropolis(MODEL, 3, (1, 2)), 4, checkpoint=path)
    np.testing.assert_array_equal(again["energy"], first["energy"])


def test_chains_depend_on_the_seed_only():
    series = [run(Metropolis(MODEL, 3, seed), 5)["energy"] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(series[0], series[1])
    assert np.all(series[0] != series[2])
    # The chains of one sampler differ too.
    assert np.all(series[0][:, 0] != series[0][:, 1])


def test_series_agree_with_the_final_spins():
    chain = SAMPLERS["heat bath"]()
    series = run(chain, 3)
    log_weight = MODEL.log_weight(chain.spins)
    np.testing.assert_allclose(series["log_weight"][-1], log_weight)
    np.testing.assert_allclose(
        series["delta"][-1], log_weight - LINEAR.log_weight(chain.spins)
    )
    signs = np.array([(-1) ** (i // 4 + i % 4) for i in range(12)])
    staggered = np.einsum("i,cia->ca", signs, chain.spins) / 12
    np.testing.assert_allclose(series["ms2"][-1], (staggered**2).sum(axis=1))


@pytest.mark.parametrize(
    "other",
    [
        lambda: Metropolis(DoubleExchange(square_lattice(3, 4), beta=7.0), 4, seed=1),
        lambda: Metropolis(MODEL, 5, seed=1),
        lambda: Metropolis(MODEL, 4, seed=2),
        lambda: SelfLearning(MODEL, HeatBath(LINEAR, 2), 4, seed=1),
    ],
)
def test_a_checkpoint_of_other_chains_raises_an_error_and_is_kept(other, tmp_path):
    path = tmp_path / "chain.npz"
    run(SAMPLERS["metropolis"](), 2, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="checkpoint of other chains"):
        run(other(), 4, checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"thermalisation": -2}, {"interval": 0}]
)
def test_invalid_numbers_of_steps_raise_an_error(wrong):
    with pytest.raises(ValueError, match="numbers of steps"):
        run(SAMPLERS["metropolis"](), **({"steps": 1} | wrong))


@pytest.mark.parametrize(
    "content", [b"", b"PK nothing", None], ids=["empty", "damaged", "an array"]
)
def test_a_file_that_is_not_a_checkpoint_raises_an_error_and_is_kept(content, tmp_path):
    path = tmp_path / "chain.npz"
    if content is None:
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="cannot be read"):
        run(SAMPLERS["metropolis"](), 4, checkpoint=path)
    assert path.read_bytes() == before


def test_a_missing_folder_raises_an_error_before_sampling(tmp_path):
    sampler = interrupted(SAMPLERS["metropolis"](), 0)
    with pytest.raises(FileNotFoundError, match="no folder"):
        run(sampler, 4, checkpoint=tmp_path / "missing" / "chain.npz")
