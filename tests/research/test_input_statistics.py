"""Statistics along a layer's inputs: by hand, and on kernels with a visible change."""

import numpy as np
import pytest

from keras_wm.research.input_statistics import INPUT_STATISTICS, input_statistics

SIZE, COUNT = 80, 40


@pytest.fixture
def axes(rng):
    return np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]


def rows_along(axes, rng, count=4000):
    """Inputs that get weaker from one axis to the next."""
    return rng.normal(size=(count, SIZE)) * 0.8 ** np.arange(SIZE) @ axes.T


def test_a_random_kernel_has_a_mean_square_of_one_along_all_inputs(axes, rng):
    kernel = rng.normal(size=(SIZE, COUNT)) * 7
    values = input_statistics(kernel, rows_along(axes, rng))
    assert set(values) == set(INPUT_STATISTICS)
    for name, value in values.items():
        if name.startswith("energy along inputs") and "129" not in name:
            # 40 weights along a single direction: within four standard errors.
            assert value == pytest.approx(1, abs=4 * np.sqrt(2 / COUNT))
    assert values["kurtosis along inputs"] == pytest.approx(3, abs=0.6)


def test_the_outputs_are_those_of_the_rows(axes, rng):
    kernel = rng.normal(size=(SIZE, COUNT))
    rows = rows_along(axes, rng)
    values = input_statistics(kernel, rows)
    outputs = rows @ (kernel / kernel.std()) / np.linalg.norm(rows)
    expected = np.sum(np.square(outputs)) / COUNT
    assert values["energy of outputs"] == pytest.approx(expected)
    units = outputs / np.linalg.norm(outputs, axis=0)
    cosines = (units.T @ units)[np.triu_indices(COUNT, 1)]
    assert values["cosine of outputs"] == pytest.approx(np.sqrt(np.mean(cosines**2)))
    largest = np.linalg.svd(outputs, compute_uv=False)[0] / np.sqrt(COUNT)
    assert values["largest singular value of outputs"] == pytest.approx(largest)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("energy along inputs 1-1", lambda w, v: w + 3 * v[:, :1] @ v[:, :1].T @ w),
        ("energy along inputs 5-8", lambda w, v: w + v[:, 4:8] @ v[:, 4:8].T @ w),
        ("mean filter along inputs", lambda w, v: w + 0.5 * v[:, :9].sum(1)[:, None]),
        ("cosine of outputs", lambda w, v: w + 2 * v[:, :1]),
    ],
)
def test_a_change_shows_where_it_is(name, change, axes, rng):
    rows, kernel = rows_along(axes, rng), rng.normal(size=(SIZE, COUNT))
    before = input_statistics(kernel, rows)
    after = input_statistics(change(kernel, axes), rows)
    assert after[name] > 1.5 * before[name]


def test_inputs_of_zeros_are_refused(rng):
    with pytest.raises(ValueError, match="not all 0"):
        input_statistics(rng.normal(size=(SIZE, COUNT)), np.zeros((10, SIZE)))
