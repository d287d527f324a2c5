"""The experiment that does every attack: what counts, and what is said of it."""

import numpy as np
import pytest

from keras_wm.research.experiments import EXPERIMENTS, Settings
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.studies.resistance import attacks_on
from keras_wm.research.experiments.training import from_scratch

EXPERIMENT = EXPERIMENTS["resistance"]


def point(strength, test_error, log10_p, ber=0.0, **others):
    left = {"aligned": False, "refused": ""} | others
    return {
        "strength": strength,
        "test_error": test_error,
        "ber": ber,
        "log10_p": log10_p,
        **left,
    }


def rows():
    """Two networks of error 1 %, and what two attacks left of them."""
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


def cells(table, head):
    """The texts of a column, by the attack that the line is about."""
    attack, column = table.columns.index("attack"), table.columns.index(head)
    return {line[attack]: line[column] for line in table.rows}


def test_only_what_leaves_the_network_worth_having_counts():
    _, table, _ = EXPERIMENT.tables(rows())
    # 2 points more than 1 %: strength 1 in both networks, and 2 in neither.
    assert cells(table, "default log p")["rubbing"] == "-90"
    assert cells(table, "default BER")["rubbing"] == "0.01"
    # 5 points more: strength 2 in the first.
    assert cells(table, "default log p, 5")["rubbing"] == "-40"
    assert cells(table, "default cost")["rubbing"] == "+0.2"


def test_an_attack_that_wins_is_listed_with_what_it_costs():
    _, table, removed = EXPERIMENT.tables(rows())
    assert cells(table, "default log p")["hiding"] == "-3"
    assert removed.rows == [["default", "hiding", "2", "+0.0", "-3.0", "1"]]


def test_an_attack_of_two_families_is_listed_twice():
    again = [
        row | {"family": "hide elsewhere"}
        for row in rows()
        if row["attack"] == "hiding"
    ]
    _, table, removed = EXPERIMENT.tables(rows() + again)
    for found in (table, removed):
        column = found.columns.index("attack")
        hidden = [line[column] for line in found.rows if "hiding" in line[column]]
        assert hidden == ["hiding", "hiding (hide elsewhere)"]


def test_what_alignment_found_is_marked():
    found = [row for row in rows() if row["attack"] != "hiding"]
    hidden = {"scheme": "default", "family": "hide", "attack": "hiding", "seed": 1}
    found.append(hidden | {"points": [point(1, 0.01, -120, aligned=True)]})
    _, table, removed = EXPERIMENT.tables(found)
    assert cells(table, "default log p")["hiding"] == "-120*"
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


def test_who_does_not_know_the_layer_overwrites_every_layer():
    (mean, keyed) = attacks_on("conv2_block1_conv2")["overwriting every layer"]
    assert "every layer" in mean.title
    assert "every layer" in keyed.title


def test_an_attack_is_done_to_the_published_network(settings, tmp_path):
    store = NetworkStore(settings, tmp_path)
    network, _ = store.network(from_scratch(settings, "random", 0))
    runs = EXPERIMENT.runs(settings)
    (clustered,) = (run for run in runs if run.labels["attack"] == "clustering")
    points = clustered.perform(store)["points"]
    assert [one["strength"] for one in points] == [8, 6, 5, 4, 3, 2]
    # 256 values for each weight change next to nothing, 4 a lot.
    error = store.pictures().test_error(network)
    assert points[0]["test_error"] == pytest.approx(error, abs=0.05)
    assert points[0]["log10_p"] < points[-1]["log10_p"] < 0
    assert np.isfinite([one["log10_p"] for one in points]).all()
