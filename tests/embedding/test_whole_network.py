"""attach(model, key): a mark in every kernel that has room for it."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_wm
from keras_wm import AttachAfter, BitErrorRate
from keras_wm.claims.layers import search_layers
from keras_wm.embedding.marked_layers import find_marked_layers
from tests.conftest import fixed_key

BITS, CLASSES = 32, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 8, 8, 3)).astype(np.float32)
Y = RNG.integers(0, CLASSES, 256)


def new_key():
    """Returns a key with anchors of its own."""
    return fixed_key.__wrapped__(BITS)


def new_model():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="first")(inputs)
    y = layers.Conv2D(32, 3, padding="same", activation="relu", name="left")(x)
    y = layers.Conv2D(32, 3, padding="same", name="right")(y)
    x = layers.Activation("relu")(layers.add([x, y]))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(256, activation="relu", name="hidden")(x)
    outputs = [
        layers.Softmax()(layers.Dense(CLASSES, name="classes")(x)),
        layers.Dense(96, name="other")(x),
    ]
    return keras.Model(inputs, outputs)


def trained(model, epochs=16, callbacks=()):
    model.compile(
        keras.optimizers.SGD(0.02, momentum=0.9),
        ["sparse_categorical_crossentropy", "mse"],
    )
    targets = [Y, np.zeros((256, 96))]
    model.fit(
        X, targets, batch_size=16, epochs=epochs, verbose=0, callbacks=[*callbacks]
    )
    return model


def names_of(model):
    return [marked.name for marked in find_marked_layers(model)]


@pytest.fixture(scope="module")
def marked():
    """A key with anchors, and a network with a mark in every kernel."""
    key, model = new_key(), new_model()
    keras_wm.attach(model, key, inputs=X)
    return key, trained(model, callbacks=[BitErrorRate()])


def test_every_kernel_with_room_has_a_slot_but_those_before_the_outputs():
    model, key = new_model(), fixed_key(BITS)
    regularizers = keras_wm.attach(model, key)
    # The first kernel is small, and the depthwise kernel has no filters of its own.
    assert names_of(model) == ["left", "right", "hidden"]
    assert [mark.slot for mark in regularizers] == [0, 1, 2]
    assert model.get_layer("right").kernel.regularizer is regularizers[1]
    for name in ("first", "classes", "other"):
        assert model.get_layer(name).kernel.regularizer is None
    keras_wm.detach(model)
    assert [mark.slot for mark in keras_wm.attach(model, None, key, slot=4)] == [
        4,
        5,
        6,
    ]


def test_each_kernel_has_an_anchor_of_its_own_inputs(marked):
    key, _ = marked
    alone = new_model()
    for slot, name in enumerate(("left", "right", "hidden")):
        anchor = key.in_slot(slot).anchor
        assert anchor.size == np.prod(alone.get_layer(name).kernel.shape[:-1])
    assert key.in_slot(3).anchor is None
    expected = keras_wm.measure_anchor(alone, "left", X)
    np.testing.assert_allclose(key.in_slot(0).anchor.gains, expected.gains, rtol=0.1)


def test_the_mark_is_proven_together_and_by_any_kernel_that_is_left(marked, tmp_path):
    key, model = marked
    keras_wm.publish(model, tmp_path / "model.keras")
    # As many slots as the key has anchors for.
    whole = keras_wm.verify(tmp_path / "model.keras", key)
    assert whole.slots == 3
    assert whole.verdict == "proven" and whole.ber == 0
    assert whole.finding.name == "together"
    for name in ("left", "right", "hidden"):
        attacked = keras.saving.load_model(tmp_path / "model.keras", compile=False)
        for redrawn in {"left", "right", "hidden"} - {name}:
            kernel = attacked.get_layer(redrawn).kernel
            kernel.assign(kernel.numpy().std() * RNG.normal(size=kernel.shape))
        assert keras_wm.verify(attacked, key).marked, name


def test_a_claim_names_every_kernel(marked, tmp_path):
    key, model = marked
    path, claim = tmp_path / "model.keras", tmp_path / "model.claim"
    keras_wm.publish(model, path, claim=claim)
    named = keras_wm.Claim.load(claim).layers
    assert {(layer.name, layer.slot) for layer in named} == {
        ("left", 0),
        ("right", 1),
        ("hidden", 2),
    }
    # Without the model in memory, each layer is found in its slot.
    assert set(search_layers(path, key, 3, 1e-9)) == set(named)
    found = keras_wm.verify(path, key, ["left", "right", "hidden"], slots=3)
    assert found.verdict == "proven" and found.finding.name == "jointly"


def test_a_kernel_that_is_not_saved_is_missed(marked, tmp_path):
    """Although the mark of the others still proves the file."""
    _, model = marked
    lost = model.get_layer("right").kernel
    hidden = keras.models.clone_model(model)
    hidden.set_weights(model.get_weights())
    assert lost.regularizer is not None

    def save_without(file, **_):
        kernel = hidden.get_layer("right").kernel
        kernel.assign(RNG.normal(size=kernel.shape))
        keras.Model.save(hidden, file)

    object.__setattr__(model, "save", save_without)
    with pytest.raises(ValueError, match=r"mark on 'right' is in the model in memory"):
        keras_wm.publish(model, tmp_path / "model.keras")
    object.__delattr__(model, "save")


def test_all_marks_together_have_the_room_of_one():
    model, key = new_model(), fixed_key(BITS)
    alone = keras_wm.attach(model, "left", key)
    kernel = model.get_layer("left").kernel
    margin = alone.scores(kernel)[1]
    keras_wm.detach(model)
    together = keras_wm.attach(model, key)[0].scores(kernel)[1]
    # The room limits both: 0.17 root(N / T) is 2.9.
    assert margin == pytest.approx(0.17 * np.sqrt(9 * 32 * 32 / BITS))
    assert together == pytest.approx(margin / 3**0.25)


def test_all_marks_together_cost_as_much_as_one():
    """A kernel of 2^16 weights gets the loss in each step; of four, in half of them."""
    wide = keras.Sequential(
        [keras.Input((256,)), *(layers.Dense(256, use_bias=False) for _ in range(5))]
    )
    (*regularizers,) = keras_wm.attach(wide, fixed_key(BITS))
    assert len(regularizers) == 4
    penalties = np.array(
        [
            float(regularizers[0](RNG.normal(size=(256, 256)).astype(np.float32)))
            for _ in range(200)
        ]
    )
    # 100 of 200 are expected: the false alarm rate of six standard deviations is 2e-9.
    assert abs(np.sum(penalties > 0) - 100) < 6 * np.sqrt(50)


def test_the_whole_network_is_marked_after_a_warm_up():
    model, key = new_model(), new_key()
    trained(model, 20, [AttachAfter(4, None, key, inputs=X), BitErrorRate()])
    found = keras_wm.verify(model, key)
    assert found.verdict == "proven" and found.ber == 0


def test_subclassed_models_leave_out_the_last_kernel():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [layers.Dense(96) for _ in range(3)]

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    model = Network()
    model(np.zeros((1, 96), np.float32))
    assert len(keras_wm.attach(model, fixed_key(BITS))) == 2


def test_a_model_without_room_is_refused():
    small = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(96)])
    with pytest.raises(ValueError, match="room for 32 bits, besides the last one"):
        keras_wm.attach(small, fixed_key(BITS))
    assert names_of(small) == []
    with pytest.raises(ValueError, match="variable='kernel'"):
        keras_wm.attach(new_model(), fixed_key(BITS), variable="kernel")
    with pytest.raises(TypeError, match="Expected a WatermarkKey"):
        keras_wm.attach(new_model(), "left")
