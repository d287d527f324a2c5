"""The effective model, on every backend: symmetries, sums, files, other lattices."""

import keras
import numpy as np
import pytest
from scipy.stats import ortho_group

from keras_wm import WatermarkRegularizer
from keras_wm.embedding.kernel_projection import without_capacity_warnings
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.learning.fit import grown
from keras_wm.slmc.models.attention import AttendingToNothing, EquivariantSelfAttention
from keras_wm.slmc.models.effective_model import (
    READOUT,
    attentions,
    effective_model,
    log_weights,
    on_lattice,
)
from keras_wm.slmc.spins import random_spins
from tests.conftest import fixed_key
from tests.slmc.chains import with_random_weights

pytestmark = pytest.mark.backends
IN_DOUBLE_PRECISION = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="JAX has no double precision unless it is asked for before it starts",
)

LATTICE = square_lattice(6)
SPINS = random_spins(np.random.default_rng(0), 3, 36)


def model(blocks=2, shells=6, lattice=LATTICE, heads=1, dtype="float32"):
    """A model whose weights are large enough to make a difference."""
    made = effective_model(lattice, shells, blocks, heads, dtype=dtype)
    return with_random_weights(made, 0.1, seed=7)


def answers(model, spins=SPINS):
    return log_weights(model, spins)


def on_grid(move):
    """A symmetry of the lattice, of spins in a row."""
    return lambda spins: move(spins.reshape(-1, 6, 6, 3)).reshape(spins.shape)


def turned(sign):
    rotation = ortho_group.rvs(3, random_state=5)
    rotation *= sign * np.linalg.det(rotation)
    return lambda spins: spins @ rotation


SYMMETRIES = {
    "rotation": turned(1),
    "rotation with a mirror": turned(-1),
    "opposite spins": lambda spins: -spins,
    "translation": on_grid(lambda grid: np.roll(grid, (1, 2), axis=(1, 2))),
    "quarter turn": on_grid(lambda grid: np.rot90(grid, axes=(1, 2))),
    "mirror": on_grid(lambda grid: grid[:, ::-1]),
    "diagonal mirror": on_grid(lambda grid: np.swapaxes(grid, 1, 2)),
}


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("name", SYMMETRIES)
def test_the_weight_does_not_change_under_a_symmetry(name, heads):
    made = model(heads=heads)
    before = answers(made)
    assert np.ptp(before) > 0.1
    np.testing.assert_allclose(
        answers(made, SYMMETRIES[name](SPINS)), before, atol=1e-4
    )


@IN_DOUBLE_PRECISION
@pytest.mark.parametrize("name", SYMMETRIES)
def test_in_double_precision_nothing_is_left_of_a_symmetry(name):
    made = model(dtype="float64")
    np.testing.assert_allclose(
        answers(made, SYMMETRIES[name](SPINS)), answers(made), atol=1e-10
    )


@pytest.mark.parametrize("name", SYMMETRIES)
def test_effective_spins_go_with_the_spins(name):
    layer = attentions(model())[0]

    def effective(spins):
        return keras.ops.convert_to_numpy(layer(spins.astype(np.float32)))

    there = SYMMETRIES[name](effective(SPINS))
    np.testing.assert_allclose(effective(SYMMETRIES[name](SPINS)), there, atol=1e-5)
    assert np.abs(effective(SPINS) - SPINS).max() > 0.1
    np.testing.assert_allclose(np.linalg.norm(there, axis=-1), 1, rtol=1e-5)


class Biased(EquivariantSelfAttention):
    """With a bias, as a Dense layer has it, or a code of positions."""

    bias = 0.0

    def call(self, spins):
        bias = keras.ops.convert_to_tensor(self.bias, spins.dtype)
        return super().call(spins + bias)


@pytest.mark.parametrize(
    ("name", "bias"), [("rotation", [0.3, 0, 0]), ("translation", 0.3 * SPINS[0])]
)
def test_a_bias_or_a_code_of_positions_breaks_a_symmetry(name, bias):
    made = model(blocks=1)
    (layer,) = attentions(made)
    biased = Biased.from_config(layer.get_config())
    biased.bias = np.array(bias)
    inputs = keras.Input((36, 3))
    broken = keras.Model(inputs, made.get_layer(READOUT)(biased(inputs)))
    biased.set_weights(layer.get_weights())
    changes = answers(broken, SYMMETRIES[name](SPINS)) - answers(broken)
    assert np.abs(changes).max() > 1e-2


def test_the_gradient_is_that_of_finite_differences():
    """Of a weight of attention, by the slope of what a small step changes."""
    made = model(blocks=1)
    (layer,) = attentions(made)
    weights = keras.ops.convert_to_numpy(layer.kernel)
    direction = np.random.default_rng(9).normal(size=weights.shape)
    values = []
    for step in (-0.01, 0.01):
        layer.kernel.assign(weights + step * direction)
        values.append(answers(made).sum())
    layer.kernel.assign(weights)
    before = weights.copy()
    made.compile(keras.optimizers.SGD(1e-3), lambda _, found: -found)
    made.train_on_batch(SPINS.astype(np.float32), np.zeros((3, 1), np.float32))
    # A step of SGD is the gradient of the mean, times the rate.
    gradient = 3 * (keras.ops.convert_to_numpy(layer.kernel) - before) / 1e-3
    slope = (values[1] - values[0]) / 0.02
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=0.02)


def test_the_linear_model_is_a_sum_over_pairs():
    made = model(blocks=0)
    couplings = keras.ops.convert_to_numpy(made.get_layer(READOUT).kernel)[:, 0]
    offset = keras.ops.convert_to_numpy(made.get_layer(READOUT).offset)[0]
    distances = (1, 2, 4, 5, 8, 9)
    expected = []
    for spins in SPINS:
        total = offset
        for i in range(36):
            for j in range(i):
                apart = [min(d % 6, -d % 6) for d in (i // 6 - j // 6, i % 6 - j % 6)]
                squared = apart[0] ** 2 + apart[1] ** 2
                if squared in distances:
                    total += couplings[distances.index(squared)] * spins[i] @ spins[j]
        expected.append(total)
    np.testing.assert_allclose(answers(made), expected, atol=1e-4)


def test_attention_is_the_sum_over_all_pairs_of_its_equations():
    layer = attentions(model(shells=2, heads=2))[0]
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    shells = [np.eye(36), *(shell.pairs for shell in LATTICE.first_shells(2))]
    spins = SPINS[0]
    attended = np.zeros((36, 3))
    scores = []
    for head in range(2):
        query, key, value = (
            sum(kernel[n, 2 * a + head] * shells[n] @ spins for n in range(3))
            for a in range(3)
        )
        scores.append(np.maximum(query @ key.T / np.sqrt(3), 0))
        attended += scores[-1] @ value
    expected = spins + attended
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    one = SPINS[:1].astype(np.float32)
    found = keras.ops.convert_to_numpy(layer(one))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    attention = keras.ops.convert_to_numpy(layer.attention(one))[0]
    np.testing.assert_allclose(attention, scores, atol=1e-5)


def test_without_values_attention_changes_nothing():
    made, linear = model(), model(blocks=0)
    for layer in attentions(made):
        kernel = keras.ops.convert_to_numpy(layer.kernel).copy()
        kernel[:, 2] = 0
        layer.kernel.assign(kernel)
    linear.get_layer(READOUT).set_weights(made.get_layer(READOUT).get_weights())
    np.testing.assert_allclose(answers(made), answers(linear), atol=1e-5)


@pytest.mark.parametrize(("blocks", "heads"), [(0, 1), (1, 1), (4, 1), (2, 3)])
def test_the_number_of_parameters_is_that_of_the_formula(blocks, heads):
    made = effective_model(LATTICE, 6, blocks, heads)
    assert made.count_params() == 3 * blocks * heads * 7 + 7


def test_a_new_block_is_the_identity():
    made = effective_model(LATTICE, 6, 1)
    effective = attentions(made)[0](SPINS.astype("float32"))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(effective), SPINS, atol=1e-6)
    # And it attends to something, or nothing could be learned.
    assert np.ptp(made.get_layer("attention1").get_weights()[0]) > 0.1


def test_the_first_weights_follow_from_the_seed():
    def first(seed):
        return effective_model(LATTICE, 6, 2, seed=seed).get_weights()

    for one, again in zip(first(3), first(3), strict=True):
        np.testing.assert_array_equal(one, again)
    assert np.abs(first(3)[0] - first(4)[0]).max() > 1e-3
    assert np.abs(first(3)[0] - first(3)[1]).max() > 1e-3


def test_a_saved_model_gives_the_same_weights(tmp_path):
    made = model(heads=2)
    made.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(answers(loaded), answers(made))


@pytest.mark.parametrize("shells", [6, 9])
def test_a_model_goes_on_a_lattice_that_has_its_shells(shells):
    """Where every spin is repeated, a lattice of 12 looks like one of 6."""
    made = model(blocks=0, shells=2)
    repeated = np.tile(SPINS.reshape(3, 6, 6, 3), (1, 2, 2, 1)).reshape(3, 144, 3)
    larger = on_lattice(made, square_lattice(12))
    offset = keras.ops.convert_to_numpy(made.get_layer(READOUT).offset)[0]
    np.testing.assert_allclose(
        answers(larger, repeated) - offset, 4 * (answers(made) - offset), rtol=1e-4
    )
    deep = model(shells=shells)
    spins = random_spins(np.random.default_rng(1), 2, 64)
    there = on_lattice(deep, square_lattice(8))
    assert np.all(np.isfinite(answers(there, spins)))
    for one, other in zip(there.get_weights(), deep.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_lattice_without_its_shells_is_refused():
    with pytest.raises(ValueError, match=r"4 x 4 sites.*Received also: \[9\]"):
        on_lattice(model(), square_lattice(4))


def test_spins_of_another_lattice_are_refused():
    with pytest.raises(ValueError, match="36"):
        model()(np.zeros((1, 16, 3), np.float32))
    layer = EquivariantSelfAttention((4, 4), (1, 2))
    with pytest.raises(ValueError, match=r"shape \(batch, 16, 3\)"):
        layer(np.zeros((1, 9, 3), np.float32))


@pytest.mark.parametrize("heads", [0, -1, 1.5])
def test_a_number_of_heads_that_is_none_is_refused(heads):
    with pytest.raises(ValueError, match="one head or more"):
        EquivariantSelfAttention((4, 4), (1, 2), heads)


def test_a_mark_is_attached_by_one_line():
    key = fixed_key(4, groups=1)
    layer = EquivariantSelfAttention(
        (6, 6),
        (1, 2, 4, 5, 8, 9),
        heads=8,
        kernel_initializer=AttendingToNothing(seed=1),
        kernel_regularizer=WatermarkRegularizer(key, margin=2.0),
    )
    layer(SPINS.astype(np.float32))
    penalties = [*layer.losses, WatermarkRegularizer(key, margin=2.0)(layer.kernel)]
    found, expected = map(keras.ops.convert_to_numpy, penalties)
    assert found == pytest.approx(expected)
    assert found > 0


def test_a_mark_goes_with_the_model_to_another_lattice():
    key = fixed_key(4, groups=1)
    with without_capacity_warnings():
        mark = WatermarkRegularizer(key, margin=2.0)
        made = effective_model(LATTICE, 2, 1, heads=8, kernel_regularizer=mark)
        there = on_lattice(made, square_lattice(8))
        assert attentions(there)[0].kernel.regularizer is mark


@IN_DOUBLE_PRECISION
def test_double_precision_stays_where_a_model_grows_or_goes():
    made = grown(effective_model(LATTICE, 2, 1, dtype="float64"))
    for one in (made, on_lattice(made, square_lattice(8))):
        types = {variable.dtype for variable in one.weights}
        assert types | {one.inputs[0].dtype} == {"float64"}


@pytest.mark.parametrize("blocks", [-1, 1.5])
def test_a_number_of_blocks_that_is_none_is_refused(blocks):
    with pytest.raises(ValueError, match="number of blocks, 0 or more"):
        effective_model(LATTICE, 2, blocks)
