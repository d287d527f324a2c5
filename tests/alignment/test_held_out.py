"""A marked reference decides neither the norms nor the order of a marked kernel."""

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm.alignment.aligner import Aligner
from keras_wm.alignment.held_out import held_out_kernels
from keras_wm.alignment.reference import read_reference
from keras_wm.files import open_model
from keras_wm.research.alignment_trials.trials import with_margin
from keras_wm.research.attacks import equivalence
from keras_wm.research.attacks.architecture import arrays_of, graph_of
from tests.conftest import fixed_key
from tests.marked_model import with_mark
from tests.research.attacks.networks import with_weights

WIDTH = 24
KEY = fixed_key(32)
LAYERS = ("first", "second", "third", "last")


@pytest.fixture
def network():
    """A residual network. Its dense layers have kernels of one shape, except the last.

    Its hidden channels are those of one residual path.
    """
    inputs = keras.Input((WIDTH,))
    x = keras.layers.Dense(WIDTH, "relu", name="first")(inputs)
    for name in ("second", "third"):
        x = keras.layers.Add()([x, keras.layers.Dense(WIDTH, "relu", name=name)(x)])
    return with_weights(
        keras.Model(inputs, keras.layers.Dense(WIDTH - 4, name="last")(x))
    )


def mark(network, **slots):
    for layer, slot in slots.items():
        kernel = network.get_layer(layer).kernel
        kernel.assign(with_mark(np.asarray(kernel, float), KEY.in_slot(slot), 1))


def held_out(network, key=KEY):
    with open_model(network) as model_file:
        names = held_out_kernels(read_reference(model_file), key)
    return {
        layer: sorted(name for name, _ in others)
        for (layer, _), others in names.items()
    }


def test_kernels_that_were_marked_with_the_same_arrays_are_held_out(network):
    mark(network, first=1, second=0, third=0, last=0)
    assert held_out(network) == {
        "first": ["first", "second", "third"],
        "second": ["second", "third"],
        "third": ["second", "third"],
        # The arrays of another shape are independent.
        "last": ["last"],
    }
    in_another_slot = held_out(network, KEY.in_slot(1))
    assert in_another_slot["second"] == ["first", "second"]
    unmarked = held_out(network, KEY.in_slot(2))
    assert unmarked == {layer: [layer] for layer in LAYERS}


def test_an_explicit_key_has_the_same_arrays_for_every_number_of_filters(network, rng):
    message = rng.integers(0, 2, 12)
    key = keras_wm.WatermarkKey.from_arrays(rng.normal(size=(12, WIDTH)), message)
    for layer in ("second", "last"):
        kernel = network.get_layer(layer).kernel
        kernel.assign(with_margin(np.asarray(kernel, float), key, 0.5))
    assert held_out(network, key)["second"] == ["last", "second"]


def test_nothing_of_a_held_out_kernel_decides_the_alignment(network, rng):
    """Order, signs and norms stay the same, whatever the reference's kernels are."""
    suspect = arrays_of(equivalence.CHAINED(network, seed=5))
    graph, reference = graph_of(network), arrays_of(network)
    names = [("second", "kernel"), ("third", "kernel")]
    results = []
    for _ in range(3):
        alignment = Aligner(graph, reference, suspect).align_without(*names)
        results.append(alignment.aligned(names[0]))
        for name in names:
            scales = np.exp(rng.normal(size=(WIDTH, 1)))
            reference[name] = scales * rng.normal(size=(WIDTH, WIDTH))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_a_network_that_is_marked_everywhere_is_found_in_every_slot(network):
    mark(network, first=0, second=1, third=2, last=3)
    suspect = equivalence.CHAINED(network, seed=5)
    assert not keras_wm.verify(suspect, KEY, slots=4).marked
    for slot, layer in enumerate(LAYERS):
        found = keras_wm.verify(suspect, KEY, layer, reference=network, slots=4)
        assert (found.slot, found.tried) == (slot, 8)
        assert found.log10_p < -9


def test_a_chain_marked_in_one_slot_cannot_be_aligned_and_the_report_says_so():
    network = with_weights(
        keras.Sequential(
            [
                keras.Input((WIDTH,)),
                *(keras.layers.Dense(WIDTH, "relu", name=name) for name in LAYERS),
            ]
        )
    )
    mark(network, first=0, second=0, third=0, last=0)
    suspect = equivalence.CHAINED(network, seed=5)
    verification = keras_wm.verify(suspect, KEY, "second", reference=network)
    assert not verification.marked
    assert "first, last, third" in verification.notes[-1]
    assert "as checkpoint" in verification.notes[-1]
