"""Copies that are fine-tuned with recipients' keys."""

import keras
import pytest

import keras_wm
from keras_wm.research.attacks.collusion import average, difference_removal
from tests.marked_model import LAYER

NAMES = ["a", "b", *(f"innocent {number}" for number in range(20))]


@pytest.fixture(scope="module")
def copies(marked):
    """Two copies of the owner's model, with the marks of the recipients a and b."""
    models = []
    for name in NAMES[:2]:
        model = keras.saving.load_model(marked.files[".keras"], compile=False)
        keras.utils.set_random_seed(2)
        # The kernel has 4,608 weights, which is little for 64 bits.
        keras_wm.attach(model, LAYER, marked.key.for_recipient(name), strength=0.03)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(marked.x, marked.y, epochs=30, verbose=0)
        models.append(model)
    return models


def named(model, marked, **options):
    found = keras_wm.identify(model, marked.key, NAMES, **options)
    return {trace.recipient for trace in found.named}


@pytest.mark.study
def test_a_fine_tuned_copy_names_its_recipient(marked, copies, tmp_path):
    for name, copy in zip(NAMES, copies, strict=False):
        file = keras_wm.publish(copy, tmp_path / f"{name}.keras")
        assert named(file, marked) == {name}
        assert keras_wm.verify(file, marked.key, LAYER).marked


@pytest.mark.study
def test_combined_copies_name_both_recipients(marked, copies):
    original = marked.files[".keras"]
    assert named(average(copies), marked, original=original) == {"a", "b"}
    removed = difference_removal(copies[1:], "inputs")(copies[0], strength=0.5)
    assert named(removed, marked, original=original) == {"a", "b"}
    assert named(original, marked) == set()
