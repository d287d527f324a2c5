"""The experiment `resistance`: the attacks that count, and its tables."""

import numpy as np
import pytest

from keras_wm.research.experiments import EXPERIMENTS, Settings, network_store
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.studies.resistance import attacks_on
from keras_wm.research.experiments.training import from_scratch
from keras_wm.research.hosts.wide_resnet import wide_resnet
from tests.marked_model import with_mark

EXPERIMENT = EXPERIMENTS["resistance"]


def point(strength, test_error, log10_p, ber=0.0, **others):
    outcome = {"aligned": False, "refused": ""} | others
    return {
        "strength": strength,
        "test_error": test_error,
        "ber": ber,
        "log10_p": log10_p,
        **outcome,
    }


def rows():
    """Rows of two networks with a test error of 1 %, and of two attacks on them."""
    before = {"test_error": 0.01, "ber": 0.0, "embedding_loss": 0.0, "log10_p": -200.0}
    rubbing = {"scheme": "default", "family": "wear", "attack": "rubbing"}
    hiding = {"scheme": "default", "family": "hide", "attack": "hiding"}
    return [
        *({"scheme": "default", "seed": n, "attack": "none"} | before for n in (0, 1)),
        rubbing
        | {"seed": 0, "points": [point(1, 0.012, -150), point(2, 0.05, -40, ber=0.1)]},
        rubbing | {"seed": 1, "points": [point(1, 0.03, -90, 0.01), point(2, 0.9, 0)]},
        hiding
        | {
            "seed": 0,
            "points": [
                point(1, 0.01, -120, aligned=True),
                point(2, 0.01, -3),
                point(3, None, 0, refused="no"),
            ],
        },
    ]


def cells(table, heading):
    """Returns the texts of a column, by the attack that the row is about."""
    attack, column = table.columns.index("attack"), table.columns.index(heading)
    return {row[attack]: row[column] for row in table.rows}


def test_only_outcomes_with_a_useful_network_count():
    _, table, _ = EXPERIMENT.tables(rows())
    # At most 2 points above 1 %: strength 1 in both networks, and 2 in neither.
    assert cells(table, "default log10 p")["rubbing"] == "-90"
    assert cells(table, "default BER")["rubbing"] == "0.01"
    # At most 5 points: also strength 2 in the first.
    assert cells(table, "default log10 p, 5 points")["rubbing"] == "-40"
    assert cells(table, "default cost")["rubbing"] == "+0.2"


def test_an_attack_that_removes_the_mark_is_listed_with_its_cost():
    _, table, removed = EXPERIMENT.tables(rows())
    assert cells(table, "default log10 p")["hiding"] == "-3"
    assert removed.rows == [["default", "hiding", "2", "+0.0", "-3.0", "1"]]


def test_an_attack_of_two_families_is_listed_twice():
    again = [
        row | {"family": "hide elsewhere"}
        for row in rows()
        if row["attack"] == "hiding"
    ]
    _, table, removed = EXPERIMENT.tables(rows() + again)
    for result in (table, removed):
        column = result.columns.index("attack")
        hidden = [row[column] for row in result.rows if "hiding" in row[column]]
        assert hidden == ["hiding", "hiding (hide elsewhere)"]


def test_a_mark_found_by_alignment_has_an_asterisk():
    recorded = [row for row in rows() if row["attack"] != "hiding"]
    hidden = {"scheme": "default", "family": "hide", "attack": "hiding", "seed": 1}
    recorded.append(hidden | {"points": [point(1, 0.01, -120, aligned=True)]})
    _, table, removed = EXPERIMENT.tables(recorded)
    assert cells(table, "default log10 p")["hiding"] == "-120*"
    assert not removed.rows


def test_the_settings_choose_the_families():
    runs = EXPERIMENT.runs(Settings(families=("quantization",), seeds=1))
    assert {run.labels["attack"] for run in runs} == {
        "none",
        "quantization",
        "clustering",
    }
    with pytest.raises(ValueError, match="familles"):
        list(EXPERIMENT.runs(Settings(families=("familles",))))


def test_an_attacker_who_does_not_know_the_layer_overwrites_every_layer():
    (mean, keyed) = attacks_on("conv2_block1_conv2")["overwriting every layer"]
    assert "every layer" in mean.title
    assert "every layer" in keyed.title


@pytest.mark.usefixtures("eager")
def test_an_attack_is_done_to_the_published_network(settings, tmp_path, monkeypatch):
    def marked_network(training, *_):
        """Writes the mark into the network, instead of training it."""
        model = wide_resnet((8, 8, 1), 3, n=1, k=1)
        (layer,) = training.mark.layers
        kernel = model.get_layer(layer).kernel
        kernel.assign(with_mark(np.asarray(kernel), training.mark.key(), 0.5))
        return model, {}

    monkeypatch.setattr(network_store, "train", marked_network)
    store = NetworkStore(settings, tmp_path)
    network, _ = store.network(from_scratch(settings, "random", 0))
    runs = EXPERIMENT.runs(settings)
    (clustered,) = (run for run in runs if run.labels["attack"] == "clustering")
    points = clustered.perform(store)["points"]
    assert [outcome["strength"] for outcome in points] == [8, 6, 5, 4, 3, 2]
    assert all(outcome.keys() == point(1, 0, 0).keys() for outcome in points)
    # 256 values for each weight change next to nothing, 4 a lot.
    error = store.pictures().test_error(network)
    assert points[0]["test_error"] == pytest.approx(error, abs=0.05)
    assert points[0]["log10_p"] < points[-1]["log10_p"] < 0
    assert np.isfinite([outcome["log10_p"] for outcome in points]).all()
