"""attach(inputs=...), AttachAfter: anchors that are measured, kept and used again."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_wm
from keras_wm import AttachAfter, BitErrorRate, WatermarkKey, WatermarkRegularizer
from tests.conftest import fixed_key

WIDTH, LAYER = 64, "hidden"
rng = np.random.default_rng(0)
# Most of the features are weak.
X = (rng.normal(size=(256, WIDTH)) * 0.8 ** np.arange(WIDTH)).astype(np.float32)
Y = rng.normal(size=(256, 4)).astype(np.float32)


def new_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            layers.Dense(96, activation="relu", name=LAYER),
            layers.Dense(4),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def new_key(bits=32):
    """Returns a key with anchors of its own."""
    return fixed_key.__wrapped__(bits)


def fit(model, epochs=30, callbacks=(), **kwargs):
    return model.fit(
        X, Y, batch_size=32, epochs=epochs, verbose=0, callbacks=callbacks, **kwargs
    )


@pytest.mark.backends
def test_the_mark_is_embedded_through_the_anchor_that_is_kept_beside_the_key(tmp_path):
    key, model = new_key(), new_model()
    key.save(tmp_path / "owner.key")
    regularizer = keras_wm.attach(model, LAYER, key, inputs=X)
    assert regularizer.key.anchor == keras_wm.measure_anchor(model, LAYER, X)
    fit(model, callbacks=[BitErrorRate()])
    keras_wm.publish(model, tmp_path / "model.keras")
    loaded = WatermarkKey.load(tmp_path / "owner.key")
    result = keras_wm.verify(tmp_path / "model.keras", loaded)
    assert result.verdict == "proven"
    # The anchor is needed.
    (tmp_path / "owner.key.anchors").unlink()
    without = WatermarkKey.load(tmp_path / "owner.key")
    assert not keras_wm.verify(tmp_path / "model.keras", without).marked


def test_the_mark_is_where_the_inputs_are(tmp_path):
    """Only the mark with inputs changes the weights mostly in their main directions."""
    change = {}
    for inputs in (None, X):
        key, model = new_key(), new_model()
        before = keras.ops.convert_to_numpy(model.get_layer(LAYER).kernel)
        keras_wm.attach(model, LAYER, key, inputs=inputs, strength=0.01)
        # Nothing but the mark changes the kernel.
        model.compile(
            keras.optimizers.SGD(0.01),
            lambda y, outputs: 0.0 * keras.ops.mean(outputs, -1),
        )
        fit(model, epochs=5)
        after = keras.ops.convert_to_numpy(model.get_layer(LAYER).kernel)
        energies = np.square(after - before).sum(axis=1)
        change[inputs is None] = energies[:10].sum() / energies.sum()
    assert change[True] < 0.3 < 0.6 < change[False]


def test_a_slot_keeps_its_first_anchor():
    key, model = new_key(), new_model()
    first = keras_wm.attach(model, LAYER, key, inputs=X).key.anchor
    keras_wm.detach(model)
    again = keras_wm.attach(model, LAYER, key, inputs=X[::-1] ** 2).key.anchor
    assert again == first == key.anchor
    with pytest.raises(ValueError, match=r"Slot 0 of the key .* has another anchor"):
        WatermarkRegularizer(key, anchor=keras_wm.measure_anchor(model, LAYER, X**2))
    # Another slot has its own.
    assert key.in_slot(1).anchor is None


def test_a_recipients_mark_has_the_owners_anchor(tmp_path):
    key, model = new_key(), new_model()
    with pytest.raises(ValueError, match="recipient 'a' has no anchor in slot 0"):
        keras_wm.attach(model, LAYER, key.for_recipient("a"), inputs=X)
    owner = keras_wm.attach(model, LAYER, key, inputs=X).key
    keras_wm.detach(model)
    copy_key = key.for_recipient("a")
    assert keras_wm.attach(model, LAYER, copy_key, inputs=X).key.anchor == owner.anchor
    fit(model, callbacks=[BitErrorRate()])
    keras_wm.publish(model, tmp_path / "model.keras")
    assert keras_wm.verify(tmp_path / "model.keras", copy_key).verdict == "proven"


def test_a_marked_kernel_is_not_measured():
    key, model = new_key(), new_model()
    keras_wm.attach(model, LAYER, key)
    fit(model, callbacks=[BitErrorRate()])
    keras_wm.detach(model)
    with pytest.raises(ValueError, match=r"'hidden' carries the mark.*slot 0 already"):
        keras_wm.attach(model, LAYER, key, inputs=X)
    assert key.anchor is None
    assert keras_wm.attach(model, LAYER, key, slot=1, inputs=X).key.anchor is not None


def test_a_refused_mark_leaves_no_anchor(tmp_path):
    key, model = new_key(), new_model()
    key.save(tmp_path / "owner.key")
    with pytest.raises(ValueError, match="strength=-1"):
        keras_wm.attach(model, LAYER, key, strength=-1, inputs=X)
    with pytest.raises(ValueError, match="Too many bits"):
        keras_wm.attach(model, LAYER, new_key(bits=100_000), inputs=X)
    assert key.anchor is None
    assert not (tmp_path / "owner.key.anchors").exists()


def test_a_layer_whose_inputs_cannot_be_measured_is_refused():
    model = keras.Sequential([keras.Input((5, 8)), layers.LSTM(32, name="lstm")])
    with pytest.raises(ValueError, match="Expected the kernel of a Dense"):
        keras_wm.attach(model, "lstm", new_key(), inputs=np.zeros((4, 5, 8)))


def test_a_key_that_was_given_as_arrays_has_no_anchor():
    key = WatermarkKey.from_arrays(rng.normal(size=(8, WIDTH)), np.ones(8))
    with pytest.raises(ValueError, match="given as arrays cannot have an anchor"):
        keras_wm.attach(new_model(), LAYER, key, inputs=X)


@pytest.mark.parametrize("has_anchor", [False, True])
def test_a_large_kernel_has_a_margin_of_four_or_with_an_anchor_of_six(has_anchor):
    kernel = np.ones((512, 512), np.float32)
    key = fixed_key.__wrapped__(64, owner="of a large kernel")
    if has_anchor:
        key = key.with_anchor(keras_wm.Anchor([1.0], np.eye(512)[:, :1]))
    assert WatermarkRegularizer(key).scores(kernel)[1] == (6.0 if has_anchor else 4.0)


@pytest.mark.backends
@pytest.mark.parametrize("callbacks", ["after", "before"])
def test_a_mark_is_attached_after_a_warm_up(callbacks):
    key, model = new_key(), new_model()
    attaching, watching = AttachAfter(10, LAYER, key, inputs=X), BitErrorRate()
    order = [attaching, watching] if callbacks == "after" else [watching, attaching]
    history = fit(model, epochs=40, callbacks=order).history
    assert key.anchor is not None
    ber = np.array(history["ber"])
    assert np.isnan(ber[:10]).all()
    # The mark is embedded within half of the 30 epochs that are left.
    assert ber[10] > 0 and not ber[26:].any()
    assert keras_wm.verify(model, key).verdict == "proven"


@pytest.mark.backends
def test_the_warm_up_is_that_of_a_network_without_a_mark():
    unmarked = new_model()
    fit(unmarked, epochs=3)
    marked = new_model()
    at_begin = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            at_begin.append(self.model.get_weights())

    fit(marked, epochs=5, callbacks=[AttachAfter(3, LAYER, new_key(), X), Look()])
    for now, expected in zip(at_begin[2], unmarked.get_weights(), strict=True):
        np.testing.assert_allclose(now, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.backends
def test_a_resumed_training_goes_on_with_the_first_anchor():
    key, model = new_key(), new_model()
    fit(model, epochs=8, callbacks=[AttachAfter(5, LAYER, key, inputs=X)])
    anchor, weights = key.anchor, model.get_weights()
    other = new_model()
    other.set_weights(weights)
    resumed = AttachAfter(5, LAYER, key, inputs=X[:32])
    callbacks = [resumed, BitErrorRate()]
    history = fit(other, epochs=40, initial_epoch=8, callbacks=callbacks).history
    assert key.anchor == anchor
    assert not np.isnan(history["ber"]).any() and history["ber"][-1] == 0
    # A second call of fit finds the mark attached.
    fit(other, epochs=7, callbacks=callbacks)
    assert len(other.losses) == 1


def test_a_training_that_ends_before_its_mark_is_attached_warns():
    model, key = new_model(), new_key()
    with pytest.warns(UserWarning, match=r"ended before the mark.*'hidden'.*5 epochs"):
        fit(model, epochs=5, callbacks=[AttachAfter(5, LAYER, key, inputs=X)])
    assert key.anchor is None


@pytest.mark.parametrize("epochs", [0, -1, 1.5, "3"])
def test_the_warm_up_has_a_positive_number_of_epochs(epochs):
    with pytest.raises(ValueError, match="Received: epochs="):
        AttachAfter(epochs, LAYER, new_key())
