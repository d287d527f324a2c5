"""WatermarkKey: derived values, invalid choices, and secrecy."""

import copy
import pickle
import traceback

import numpy as np
import pytest

from keras_wm import KeyFileError, WatermarkKey, detect
from tests.conftest import FIXED_SECRET, fixed_key


def test_two_generated_keys_have_nothing_in_common():
    first, second = (WatermarkKey.generate("Example Ltd", 64) for _ in range(2))
    assert first != second
    assert first.commitment != second.commitment
    messages = [key.for_shape((40, 8)).message for key in (first, second)]
    assert not np.array_equal(*messages)


def test_defaults_are_64_bits_with_keyed_filters_and_a_group_each():
    key = WatermarkKey.generate("Example Ltd")
    assert (key.bits, key.projection, key.filters, key.groups) == (
        64,
        "random",
        "keyed",
        64,
    )
    assert key.certified


def test_a_short_message_has_no_more_groups_than_bits():
    assert WatermarkKey.generate("Example Ltd", 5).groups == 5
    assert WatermarkKey.generate("Example Ltd", 256).groups == 64


def test_every_array_depends_on_every_choice_and_on_the_kernel():
    kernels = [
        fixed_key(64).for_shape((40, 8)),
        fixed_key(64, owner="Another Ltd").for_shape((40, 8)),
        fixed_key(64, secret=bytes(32)).for_shape((40, 8)),
        fixed_key(64, groups=32).for_shape((40, 8)),
        fixed_key(64).in_slot(1).for_shape((40, 8)),
        fixed_key(64).for_shape((40, 9)),
        fixed_key(64).for_shape((41, 8)),
        fixed_key(65).for_shape((40, 8)),
    ]
    # 64 random bits are equal in any of the 28 pairs with a probability of 3e-18.
    assert len({tuple(kernel.message[:64]) for kernel in kernels}) == len(kernels)
    assert len({tuple(kernel.matrix[0, :40]) for kernel in kernels}) == len(kernels)
    signs = {tuple(kernel.filter_weights[:, :8].ravel()[:256]) for kernel in kernels}
    assert len(signs) == len(kernels)


def test_a_key_with_another_number_of_groups_is_not_certified():
    assert fixed_key(64).certified
    assert not fixed_key(64, groups=32).certified


def test_the_commitment_depends_on_every_choice():
    keys = [
        fixed_key(),
        fixed_key(bits=33),
        fixed_key(projection="direct"),
        fixed_key(filters="mean"),
        fixed_key(owner="Another Ltd"),
        fixed_key(secret=bytes(32)),
        fixed_key(groups=8),
    ]
    assert len({key.commitment for key in keys}) == len(keys)


def test_random_entries_are_standard_normal(rng):
    # Kolmogorov-Smirnov test of 147,456 entries with a false alarm rate of 1e-6
    # (statistic 2.7 / sqrt(n)). In addition, the key is fixed.
    from scipy.special import ndtr

    entries = np.sort(fixed_key(256).for_shape((576, 64)).matrix.ravel())
    steps = np.arange(1, entries.size + 1) / entries.size
    assert np.abs(ndtr(entries) - steps).max() < 2.7 / np.sqrt(entries.size)


@pytest.mark.parametrize(("projection", "ones"), [("direct", 1), ("diff", 2)])
def test_sparse_projections_use_each_weight_once(projection, ones):
    matrix = fixed_key(20, projection).for_shape((41, 8)).matrix
    assert (np.abs(matrix).sum(axis=1) == ones).all()
    assert np.abs(matrix).sum(axis=0).max() == 1
    assert matrix.sum() == (20 if projection == "direct" else 0)


def test_arrays_of_a_key_are_read_only(key):
    arrays = key.for_shape((40, 8))
    for array in (arrays.message, arrays.matrix, arrays.filter_weights):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize(
    ("projection", "bits", "m", "limit"),
    [("direct", 41, 40, "T <= 40"), ("diff", 21, 40, "T <= 20")],
)
def test_too_many_bits_are_an_error_that_names_the_limit(projection, bits, m, limit):
    with pytest.raises(ValueError, match=rf"T={bits} .*M={m} .*{limit}"):
        fixed_key(bits, projection).for_shape((m, 8))


def test_an_even_number_of_filters_is_only_read_by_their_differences():
    # Two filters are read by their difference, three by three combinations.
    assert fixed_key(79).for_shape((40, 2)).size == 40
    with pytest.raises(ValueError, match=r"T=80 .*M=40 .*L=2 .*T <= 79"):
        fixed_key(80).for_shape((40, 2))
    assert fixed_key(239).for_shape((40, 3)).count == 3


@pytest.mark.parametrize("count", [2, 5, 64, 65])
def test_keyed_weights_have_as_many_positive_as_negative_signs(count):
    weights = fixed_key(48).for_shape((40, count)).filter_weights
    assert weights.shape == (48, count)
    assert set(np.unique(weights)) == {-1.0, 1.0}
    assert (weights.sum(axis=1) == count % 2).all()


def test_a_random_projection_has_the_limit_of_cover():
    key = fixed_key(79, filters="mean")
    assert key.for_shape((40, 5)).size == 40
    with pytest.raises(ValueError, match=r"T=80 .*M=40 .*T <= 79"):
        fixed_key(80, filters="mean").for_shape((40, 5))


@pytest.mark.parametrize("shape", [(7,), (), (3, 0)])
def test_a_bias_is_not_a_kernel(key, shape):
    with pytest.raises(ValueError, match="rank 2 or more"):
        key.for_shape(shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"owner": ""}, "owner=''"),
        ({"owner": None}, "owner=None"),
        ({"bits": 0}, "bits=0"),
        ({"bits": 2.5}, "bits=2.5"),
        ({"bits": True}, "bits=True"),
        ({"projection": "rand"}, "'random', 'direct', 'diff'.*projection='rand'"),
        ({"filters": "all"}, "'keyed', 'mean'.*filters='all'"),
    ],
)
def test_the_error_names_the_invalid_choice(arguments, message):
    choices = {"owner": "Example Ltd", **arguments}
    with pytest.raises(ValueError, match=message):
        WatermarkKey.generate(**choices)


def test_no_representation_of_a_key_shows_its_secret():
    key = fixed_key()
    shown = repr(key) + str(key) + repr(key._source.secret) + f"{vars(key)}"
    assert FIXED_SECRET.hex() not in shown
    assert repr(FIXED_SECRET)[2:20] not in shown


@pytest.mark.parametrize("old", ['"checksum"', "keyed", "32"])
def test_a_traceback_with_local_variables_shows_no_secret(tmp_path, old):
    path = tmp_path / "owner.key"
    fixed_key().save(path)
    path.write_text(path.read_text().replace(old, "", 1))
    with pytest.raises(KeyFileError) as caught:
        WatermarkKey.load(path)
    ours = [
        frame.f_locals
        for frame, _ in traceback.walk_tb(caught.tb)
        if "keras_wm" in frame.f_globals["__name__"]
    ]
    assert ours
    assert FIXED_SECRET.hex() not in repr(ours)


def test_a_key_cannot_be_pickled(key):
    with pytest.raises(TypeError, match=r"key\.save"):
        pickle.dumps(key)


def test_a_copy_of_a_key_is_the_key(key):
    assert copy.copy(key) is key
    assert copy.deepcopy({"a": key})["a"] is key


def test_a_key_in_another_slot_is_the_same_key_with_other_arrays(key, tmp_path):
    other = key.in_slot(3)
    assert other != key
    assert (other.commitment, other.slot) == (key.commitment, 3)
    assert "slot 3" in repr(other)
    assert other.in_slot(0) == key
    assert other.for_recipient("a") == key.for_recipient("a").in_slot(3)
    other.save(tmp_path / "owner.key")
    assert WatermarkKey.load(tmp_path / "owner.key") == key


@pytest.mark.parametrize("slot", [-1, 1.0, "1", True, None])
def test_a_slot_is_a_number(key, slot):
    with pytest.raises(ValueError, match=r"number of a slot.*slot="):
        key.in_slot(slot)


def test_an_explicit_key_has_one_slot(rng):
    key = WatermarkKey.from_arrays(rng.normal(size=(4, 9)), [0, 1, 1, 0])
    assert key.in_slot(0) == key
    with pytest.raises(ValueError, match=r"given as arrays.*slot=1"):
        key.in_slot(1)


def test_an_explicit_key_uses_the_mean_filter(rng):
    matrix, kernel = rng.normal(size=(10, 18)), rng.normal(size=(3, 3, 2, 6))
    message = rng.integers(0, 2, 10)
    key = WatermarkKey.from_arrays(matrix, message)
    y = matrix @ kernel.mean(axis=-1).ravel()
    expected = np.mean((y > 0) != message)
    assert detect(kernel, key).ber == pytest.approx(expected)
    assert not key.certified


def test_the_reference_files_are_read_as_the_reference_code_reads_them(tmp_path, rng):
    w, b = rng.normal(size=(18, 10)), np.ones((1, 10))
    np.save(tmp_path / "a_w.npy", w)
    np.save(tmp_path / "a_b.npy", b)
    kernel = rng.normal(size=(3, 3, 2, 6))
    key = WatermarkKey.from_reference(tmp_path / "a_w.npy", tmp_path / "a_b.npy")
    decoded = 1 / (1 + np.exp(-kernel.mean(axis=3).reshape(1, -1) @ w)) > 0.5
    assert detect(kernel, key).ber == pytest.approx(np.mean(decoded != b))


def test_an_explicit_key_can_be_saved_and_loaded(tmp_path, rng):
    key = WatermarkKey.from_arrays(rng.normal(size=(4, 9)), [0, 1, 1, 0])
    key.save(tmp_path / "explicit.key")
    loaded = WatermarkKey.load(tmp_path / "explicit.key")
    assert loaded == key
    assert not loaded.certified
    matrices = [given.for_shape((9, 2)).matrix for given in (loaded, key)]
    np.testing.assert_array_equal(*matrices)


def test_an_explicit_key_does_not_fit_kernels_of_another_size(rng):
    key = WatermarkKey.from_arrays(rng.normal(size=(4, 9)), [0, 1, 1, 0])
    with pytest.raises(ValueError, match=r"M=9 .*M=12.*T=4"):
        key.for_shape((12, 3))


@pytest.mark.parametrize(
    ("matrix", "bits", "message"),
    [
        (np.ones(5), [1], r"shape \(T, M\).*\(5,\)"),
        (np.ones((2, 5)), [1], "2 bits.*1 values"),
        (np.ones((2, 5)), [1, 2], "0 or 1"),
        (np.full((2, 5), np.nan), [1, 0], "finite"),
        (np.zeros((2, 5)), [1, 0], "zeros"),
    ],
)
def test_the_error_names_the_problem_of_given_arrays(matrix, bits, message):
    with pytest.raises(ValueError, match=message):
        WatermarkKey.from_arrays(matrix, bits)


def test_a_pickled_array_is_never_loaded(tmp_path):
    np.save(tmp_path / "a_w.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(KeyFileError, match=r"a_w\.npy"):
        WatermarkKey.from_reference(tmp_path / "a_w.npy", tmp_path / "a_w.npy")
