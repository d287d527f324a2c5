"""The effective model on every backend: symmetries, equations, files, lattices."""

import keras
import numpy as np
import pytest
from scipy.stats import ortho_group

from keras_wm import WatermarkRegularizer
from keras_wm.embedding.loss.kernel_projection import without_capacity_warnings
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.models.attention import (
    EquivariantSelfAttention,
    ZeroValueInitializer,
)
from keras_wm.slmc.models.effective_model import (
    READOUT,
    attentions,
    effective_model,
    log_weights,
    on_lattice,
    set_linear,
    with_extra_block,
)
from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.slmc.spins import random_spins, unit
from tests.conftest import fixed_key
from tests.slmc.chains import with_random_weights

pytestmark = pytest.mark.backends
IN_DOUBLE_PRECISION = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="JAX computes in double precision only if it is set before the start",
)

LATTICE = square_lattice(6)
SPINS = random_spins(np.random.default_rng(0), 3, 36)


def random_model(blocks=2, shells=6, heads=1, dtype="float32"):
    """Makes a model with random weights, large enough to matter."""
    model = effective_model(LATTICE, shells, blocks, heads, dtype=dtype)
    return with_random_weights(model, 0.1, seed=7)


def on_grid(move):
    """Makes a symmetry of the lattice act on spins in a row."""
    return lambda spins: move(spins.reshape(-1, 6, 6, 3)).reshape(spins.shape)


def rotated(sign):
    rotation = ortho_group.rvs(3, random_state=5)
    rotation *= sign * np.linalg.det(rotation)
    return lambda spins: spins @ rotation


SYMMETRIES = {
    "rotation": rotated(1),
    "rotation with a reflection": rotated(-1),
    "opposite spins": lambda spins: -spins,
    "translation": on_grid(lambda grid: np.roll(grid, (1, 2), axis=(1, 2))),
    "quarter turn": on_grid(lambda grid: np.rot90(grid, axes=(1, 2))),
    "mirror": on_grid(lambda grid: grid[:, ::-1]),
    "diagonal mirror": on_grid(lambda grid: np.swapaxes(grid, 1, 2)),
}


def symmetry_errors(model):
    """Changes of the log weight under each symmetry, for all symmetries in one call."""
    moved = [symmetry(SPINS) for symmetry in SYMMETRIES.values()]
    values = log_weights(model, np.concatenate([SPINS, *moved])).reshape(-1, 3)
    assert np.ptp(values[0]) > 0.1
    return dict(zip(SYMMETRIES, values[1:] - values[0], strict=True))


@pytest.mark.parametrize("heads", [1, 2])
def test_the_log_weight_is_invariant_under_every_symmetry(heads):
    for name, error in symmetry_errors(random_model(heads=heads)).items():
        np.testing.assert_allclose(error, 0, atol=1e-4, err_msg=name)


@IN_DOUBLE_PRECISION
def test_in_double_precision_the_symmetries_are_exact():
    for name, error in symmetry_errors(random_model(dtype="float64")).items():
        np.testing.assert_allclose(error, 0, atol=1e-10, err_msg=name)


def test_effective_spins_transform_like_the_spins():
    layer = attentions(random_model())[0]

    def effective(spins):
        return keras.ops.convert_to_numpy(layer(spins.astype(np.float32)))

    plain = effective(SPINS)
    assert np.abs(plain - SPINS).max() > 0.1
    np.testing.assert_allclose(np.linalg.norm(plain, axis=-1), 1, rtol=1e-5)
    for name, symmetry in SYMMETRIES.items():
        np.testing.assert_allclose(
            effective(symmetry(SPINS)), symmetry(plain), atol=1e-5, err_msg=name
        )


class Biased(EquivariantSelfAttention):
    """Attention with a bias vector or a positional encoding."""

    bias = 0.0

    def call(self, spins):
        bias = keras.ops.convert_to_tensor(self.bias, spins.dtype)
        return super().call(spins + bias)


@pytest.mark.parametrize(
    ("name", "bias"), [("rotation", [0.3, 0, 0]), ("translation", 0.3 * SPINS[0])]
)
def test_a_bias_or_a_positional_encoding_breaks_a_symmetry(name, bias):
    model = random_model(blocks=1)
    (layer,) = attentions(model)
    biased = Biased.from_config(layer.get_config())
    biased.bias = np.array(bias)
    inputs = keras.Input((36, 3))
    broken = keras.Model(inputs, model.get_layer(READOUT)(biased(inputs)))
    biased.set_weights(layer.get_weights())
    assert np.abs(symmetry_errors(broken)[name]).max() > 1e-2


def test_the_gradient_of_an_attention_kernel_agrees_with_finite_differences():
    model = random_model(blocks=1)
    (layer,) = attentions(model)
    weights = keras.ops.convert_to_numpy(layer.kernel)
    direction = np.random.default_rng(9).normal(size=weights.shape)
    values = []
    for step in (-0.01, 0.01):
        layer.kernel.assign(weights + step * direction)
        values.append(log_weights(model, SPINS).sum())
    layer.kernel.assign(weights)
    before = weights.copy()
    model.compile(keras.optimizers.SGD(1e-3), lambda _, predicted: -predicted)
    model.train_on_batch(SPINS.astype(np.float32), np.zeros((3, 1), np.float32))
    # A step of SGD is the learning rate times the gradient of the mean.
    gradient = 3 * (keras.ops.convert_to_numpy(layer.kernel) - before) / 1e-3
    slope = (values[1] - values[0]) / 0.02
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=0.02)


def test_the_linear_model_is_a_sum_over_pairs():
    model = random_model(blocks=0)
    couplings = keras.ops.convert_to_numpy(model.get_layer(READOUT).kernel)[:, 0]
    offset = keras.ops.convert_to_numpy(model.get_layer(READOUT).offset)[0]
    distances = (1, 2, 4, 5, 8, 9)
    expected = []
    for spins in SPINS:
        total = offset
        for i in range(36):
            for j in range(i):
                steps = [min(d % 6, -d % 6) for d in (i // 6 - j // 6, i % 6 - j % 6)]
                squared = steps[0] ** 2 + steps[1] ** 2
                if squared in distances:
                    total += couplings[distances.index(squared)] * spins[i] @ spins[j]
        expected.append(total)
    np.testing.assert_allclose(log_weights(model, SPINS), expected, atol=1e-4)


def test_attention_agrees_with_its_equations():
    layer = attentions(random_model(shells=2, heads=2))[0]
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
    batch = SPINS[:1].astype(np.float32)
    effective = keras.ops.convert_to_numpy(layer(batch))[0]
    np.testing.assert_allclose(effective, expected, atol=1e-5)
    attention = keras.ops.convert_to_numpy(layer.attention(batch))[0]
    np.testing.assert_allclose(attention, scores, atol=1e-5)


def test_with_zero_values_attention_is_the_identity():
    model, linear = random_model(), random_model(blocks=0)
    for layer in attentions(model):
        kernel = keras.ops.convert_to_numpy(layer.kernel).copy()
        kernel[:, 2] = 0
        layer.kernel.assign(kernel)
    linear.get_layer(READOUT).set_weights(model.get_layer(READOUT).get_weights())
    expected = log_weights(linear, SPINS)
    np.testing.assert_allclose(log_weights(model, SPINS), expected, atol=1e-5)


def test_the_number_of_parameters_is_that_of_the_formula():
    for blocks, heads in ((0, 1), (1, 1), (4, 1), (2, 3)):
        model = effective_model(LATTICE, 6, blocks, heads)
        assert model.count_params() == 3 * blocks * heads * 7 + 7


def test_a_new_block_is_the_identity():
    model = effective_model(LATTICE, 6, 1)
    effective = attentions(model)[0](SPINS.astype("float32"))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(effective), SPINS, atol=1e-6)
    # Queries and keys are not zero: otherwise the gradients would vanish.
    assert np.ptp(model.get_layer("attention1").get_weights()[0]) > 0.1


def test_a_model_with_an_extra_block_gives_the_same_log_weights():
    small = random_model(blocks=1, shells=2, heads=2)
    set_linear(small, LinearModel(LATTICE, np.array([-0.4, 0.2]), 3.0))
    large = with_extra_block(small, seed=2, heads=2)
    assert [block.heads for block in attentions(large)] == [2, 2]
    for name in ("attention1", READOUT):
        for copy, original in zip(
            large.get_layer(name).get_weights(),
            small.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(copy, original)
    # Ordered spins, in which small contributions of all sites would add up.
    spins = LATTICE.sublattice_signs[:, None] * np.array([0.0, 0.0, 1.0])
    spins = unit(spins + 0.3 * np.random.default_rng(3).normal(size=(20, 36, 3)))
    before = log_weights(small, spins)
    assert np.ptp(before) > 1
    np.testing.assert_allclose(log_weights(large, spins), before, atol=1e-4)


def test_the_first_weights_depend_on_the_seed_only():
    def first(seed):
        return effective_model(LATTICE, 6, 2, seed=seed).get_weights()

    for kernel, again in zip(first(3), first(3), strict=True):
        np.testing.assert_array_equal(kernel, again)
    assert np.abs(first(3)[0] - first(4)[0]).max() > 1e-3
    assert np.abs(first(3)[0] - first(3)[1]).max() > 1e-3


def test_a_saved_model_gives_the_same_log_weights(tmp_path):
    model = random_model(heads=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(log_weights(loaded, SPINS), log_weights(model, SPINS))


def test_periodic_spins_have_the_same_weight_per_site_on_a_larger_lattice():
    small = random_model(blocks=0, shells=2)
    repeated = np.tile(SPINS.reshape(3, 6, 6, 3), (1, 2, 2, 1)).reshape(3, 144, 3)
    large = on_lattice(small, square_lattice(12))
    offset = keras.ops.convert_to_numpy(small.get_layer(READOUT).offset)[0]
    expected = 4 * (log_weights(small, SPINS) - offset)
    np.testing.assert_allclose(
        log_weights(large, repeated) - offset, expected, rtol=1e-4
    )


@pytest.mark.parametrize("shells", [6, 9])
def test_a_model_keeps_its_weights_on_another_lattice(shells):
    model = random_model(shells=shells)
    moved = on_lattice(model, square_lattice(8))
    spins = random_spins(np.random.default_rng(1), 2, 64)
    assert np.all(np.isfinite(log_weights(moved, spins)))
    for copy, original in zip(moved.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(copy, original)


def test_a_lattice_without_the_shells_raises_an_error():
    with pytest.raises(ValueError, match=r"4 x 4 sites.*Received also: \[9\]"):
        on_lattice(random_model(), square_lattice(4))


def test_spins_of_another_lattice_raise_an_error():
    with pytest.raises(ValueError, match="36"):
        random_model()(np.zeros((1, 16, 3), np.float32))
    layer = EquivariantSelfAttention((4, 4), (1, 2))
    with pytest.raises(ValueError, match=r"shape \(batch, 16, 3\)"):
        layer(np.zeros((1, 9, 3), np.float32))


@pytest.mark.parametrize("heads", [0, -1, 1.5])
def test_an_invalid_number_of_heads_raises_an_error(heads):
    with pytest.raises(ValueError, match="at least one head"):
        EquivariantSelfAttention((4, 4), (1, 2), heads)


@pytest.mark.parametrize("blocks", [-1, 1.5])
def test_an_invalid_number_of_blocks_raises_an_error(blocks):
    with pytest.raises(ValueError, match="number of blocks, 0 or more"):
        effective_model(LATTICE, 2, blocks)


def test_a_watermark_is_a_regularizer_of_the_kernel():
    key = fixed_key(4, groups=1)
    layer = EquivariantSelfAttention(
        (6, 6),
        (1, 2, 4, 5, 8, 9),
        heads=8,
        kernel_initializer=ZeroValueInitializer(seed=1),
        kernel_regularizer=WatermarkRegularizer(key, margin=2.0),
    )
    layer(SPINS.astype(np.float32))
    (penalty,) = map(keras.ops.convert_to_numpy, layer.losses)
    expected = WatermarkRegularizer(key, margin=2.0)(layer.kernel)
    assert penalty == pytest.approx(keras.ops.convert_to_numpy(expected))
    assert penalty > 0


def test_a_model_on_another_lattice_has_the_same_watermark_regularizer():
    key = fixed_key(4, groups=1)
    with without_capacity_warnings():
        mark = WatermarkRegularizer(key, margin=2.0)
        model = effective_model(LATTICE, 2, 1, heads=8, kernel_regularizer=mark)
        moved = on_lattice(model, square_lattice(8))
        assert attentions(moved)[0].kernel.regularizer is mark


@IN_DOUBLE_PRECISION
def test_copies_of_a_double_precision_model_are_in_double_precision():
    model = with_extra_block(effective_model(LATTICE, 2, 1, dtype="float64"))
    for copy in (model, on_lattice(model, square_lattice(8))):
        types = {variable.dtype for variable in copy.weights}
        assert types | {copy.inputs[0].dtype} == {"float64"}
