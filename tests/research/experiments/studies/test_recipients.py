"""The study of recipients: which leaks it makes, and whom it names."""

from dataclasses import replace

import numpy as np
import pytest

from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.studies import recipients
from keras_wm.research.experiments.training import from_scratch
from keras_wm.research.hosts.wide_resnet import wide_resnet
from keras_wm.scheme.detection import corrected, detect
from tests.conftest import fixed_key
from tests.marked_model import with_mark
from tests.research.experiments.conftest import made_pictures

SETTINGS = Settings(seeds=1, k=1, marks=("default",))


class Copies:
    """A store whose copies are marked without training, for all recipients but one."""

    def __init__(self, unmarked="customer-4"):
        self._unmarked = unmarked
        self.pictures = lambda task: made_pictures()
        self._model = wide_resnet((8, 8, 1), 3, n=1, k=1)

    def network(self, training):
        model, mark = self._model, training.own_mark
        layer = model.get_layer(mark.layers[0])
        kernel = np.random.default_rng(1).normal(size=layer.kernel.shape)
        if mark.recipient and mark.recipient != self._unmarked:
            kernel = with_mark(kernel, mark.key(), 0.4)
        layer.kernel.assign(kernel)
        return model, {}


@pytest.fixture(scope="module")
def row():
    run, *_ = recipients.EXPERIMENT.runs(SETTINGS)
    return {**run.perform(Copies()), **run.labels}


def test_scores_of_many_kernels_and_keys_are_those_of_detect(rng):
    keys = [fixed_key(24).for_recipient(name) for name in "abc"]
    kernels = [rng.normal(size=(3, 3, 4, 6)) for _ in range(4)]
    kernels[1] = with_mark(kernels[1], keys[2], 2)
    kernels[3][:2] = 0
    expected = [[detect(kernel, key).log10_p for key in keys] for kernel in kernels]
    found = recipients.soft_log10_p(kernels, keys)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_every_kind_of_leak_is_made_of_as_many_copies_as_it_says(row):
    conditions = row["conditions"]
    kinds = {(kind["attack"], kind["mixed"], kind["drift"]) for kind in conditions}
    assert len(kinds) == len(conditions) == 3 + 4 * 9 + 4 * 2
    for condition in conditions:
        assert len(condition["test_errors"]) == 2
        for way in ("plain", "by_change"):
            assert condition[way]["innocents"] == 10 * (200 - condition["mixed"])
            assert len(condition[way]["named"]) == 10
            assert max(condition[way]["named"]) <= condition["mixed"]


def test_recipients_of_marked_copies_are_named_and_nobody_else(row):
    for condition in row["conditions"]:
        assert condition["plain"]["innocent_named"] == 0
        assert condition["by_change"]["innocent_named"] == 0
        if condition["attack"] == "average":
            for named in condition["by_change"]["named"]:
                assert condition["mixed"] - named in (0, 1)
    single = row["conditions"][0]
    assert single["mixed"] == 1
    assert single["by_change"]["named"] == [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]


@pytest.mark.study
def test_the_weakest_p_value_is_corrected_for_all_recipients():
    run, *_ = recipients.EXPERIMENT.runs(SETTINGS)
    row = run.perform(Copies(unmarked=""))
    mark = from_scratch(SETTINGS, "default", 0).own_mark
    keys = [
        replace(mark, recipient=name).key()
        for name in recipients.recipients_of(SETTINGS)[:10]
    ]
    kernel = np.random.default_rng(1).normal(size=(3, 3, 16, 16))
    copies = [with_mark(kernel, key, 0.4).astype("float32") for key in keys]
    weakest = max(
        detect(copy, key).log10_p for copy, key in zip(copies, keys, strict=True)
    )
    single = row["conditions"][0]["plain"]
    assert single["log10_p"] == pytest.approx(corrected(weakest, 200), rel=1e-4)


def test_the_table_shows_each_kind_of_leak(row):
    without, table = recipients.EXPERIMENT.tables([row])
    assert len(without.rows) == len(table.rows) == 47
    columns = dict(zip(table.columns, table.rows[0], strict=True))
    assert (columns["named"], columns["wrong"]) == ("9", "0")
    assert "leaks, of 10," in " ".join(table.notes)
