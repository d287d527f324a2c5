"""The store that trains every network of a study once."""

from dataclasses import replace

import numpy as np
import pytest

from keras_wm.research.experiments import network_store
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.schemes import owners_key
from keras_wm.research.experiments.training import ROTATIONS, Training, from_scratch
from keras_wm.research.hosts.wide_resnet import wide_resnet
from keras_wm.scheme.anchor import Anchor

HISTORY = {"test_error": [0.5, 0.25], "loss": [1.0], "ber": []}


@pytest.fixture
def trained(monkeypatch):
    """The trainings that were done; networks are built and marked, but not trained."""
    done = []

    def train(training, settings, pictures, parent):
        done.append(training)
        for needed in filter(None, (training.start, training.teacher)):
            parent(needed)
        model = wide_resnet((8, 8, 1), pictures.classes, n=1, k=1)
        if training.mark is not None:
            training.mark.attach(model)
        return model, HISTORY if training.from_scratch else {}

    monkeypatch.setattr(network_store, "train", train)
    return done


def test_a_network_from_scratch_is_trained_once_and_stored(settings, tmp_path, trained):
    host = from_scratch(settings, "random", 0)
    store = NetworkStore(settings, tmp_path)
    assert not store.has(host)
    first, history = store.network(host)
    again, stored_history = NetworkStore(settings, tmp_path).network(host)
    assert trained == [host] and store.has(host)
    assert history == stored_history == HISTORY
    for left, right in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    # A longer training, and the same training of a wider host, are other networks.
    assert not store.has(replace(host, epochs=2))
    assert not NetworkStore(replace(settings, k=2), tmp_path).has(host)


def test_a_stored_network_does_not_show_its_mark(settings, tmp_path, trained):
    NetworkStore(settings, tmp_path).network(from_scratch(settings, "random", 0))
    (file,) = (tmp_path / "networks").glob("*.keras")
    assert b"atermark" not in file.read_bytes()
    model, _ = NetworkStore(settings, tmp_path).network(
        from_scratch(settings, "random", 0)
    )
    layer = model.get_layer("conv2_block1_conv2")
    assert "Watermark" not in type(layer.kernel_regularizer).__name__


def test_the_anchors_of_a_network_are_stored_with_it(
    settings, tmp_path, monkeypatch, trained
):
    host = from_scratch(settings, "anchored", 91)
    anchor = Anchor([2.0], np.eye(144)[:, :1])

    def train(training, *_):
        training.mark.key().add_anchor(anchor)
        return wide_resnet((8, 8, 1), 3, n=1, k=1), HISTORY

    monkeypatch.setattr(network_store, "train", train)
    NetworkStore(settings, tmp_path).network(host)
    owners_key.cache_clear()
    assert host.mark.key().anchor is None
    NetworkStore(settings, tmp_path).network(host)
    assert host.mark.key().anchor == anchor


def test_other_networks_are_trained_from_stored_ones_and_not_stored(
    settings, tmp_path, trained
):
    host = from_scratch(settings, "random", 0)
    second = Training(1, 1, task=ROTATIONS, start=host)
    store = NetworkStore(settings, tmp_path)
    store.network(second)
    store.network(second)
    assert trained == [second, host, second]
    assert not store.has(second)
    # Rotations by 0, 1, 2 and 3 quarter turns.
    assert store.pictures(ROTATIONS).classes == 4
    assert store.pictures() is store.pictures()
