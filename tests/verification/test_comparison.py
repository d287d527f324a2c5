"""compare: the order of two marks."""

import json

import numpy as np
import pytest

import keras_wm
from tests.command_line import run
from tests.conftest import fixed_key
from tests.marked_model import with_mark
from tests.verification.test_identification import model_of

ALICE = fixed_key(64, owner="Alice")
BOB = fixed_key(64, owner="Bob", secret=b"\x07" * 32)


@pytest.fixture(scope="module")
def models():
    """Models without a mark, and with the marks of Alice, of Bob, and of both."""
    plain = np.random.default_rng(8).normal(size=(3, 3, 16, 24))
    alices = with_mark(plain, ALICE, 0.5)
    kernels = {
        "plain": plain,
        "alice": alices,
        "bob": with_mark(plain, BOB, 0.5),
        "both": with_mark(alices, BOB, 0.5),
    }
    return {name: model_of(kernel) for name, kernel in kernels.items()}


def comparison(models, disputed, alices, bobs):
    parties = [
        keras_wm.Party(ALICE, models[alices]),
        keras_wm.Party(BOB, models[bobs]),
    ]
    found = keras_wm.compare(models[disputed], parties)
    reverse = keras_wm.compare(models[disputed], parties[::-1])
    # The order of the parties does not matter.
    assert (reverse.first, reverse.reason) == (found.first, found.reason) or (
        found.first is None is reverse.first
    )
    return found


def test_the_party_with_a_model_without_the_others_mark_was_first(models):
    found = comparison(models, "both", "alice", "both")
    assert found.first == "Alice"
    assert "Bob began with a model that Alice had marked" in repr(found)


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (("both", "both", "both"), "Each party's own model has the other's mark"),
        (("both", "alice", "bob"), "they cannot both be"),
        (("alice", "alice", "both"), "Bob's mark is not in the disputed model"),
        (("both", "plain", "both"), "Alice's mark is not in Alice's own model"),
    ],
)
def test_otherwise_the_order_is_not_shown_and_the_report_says_why(
    models, shown, reason
):
    found = comparison(models, *shown)
    assert found.first is None
    assert reason in found.reason
    assert "NOT SHOWN" in repr(found)


def test_parties_with_the_same_name_are_distinguished(models):
    twin = fixed_key(64, owner="Alice", secret=b"\x07" * 32)
    kernel = with_mark(np.asarray(models["alice"].layers[0].kernel), twin, 0.5)
    both = model_of(kernel)
    parties = [keras_wm.Party(ALICE, models["alice"]), keras_wm.Party(twin, both)]
    found = keras_wm.compare(both, parties)
    assert found.first == f"Alice ({ALICE.commitment[:8]})"


def test_the_report_warns_of_a_key_given_as_arrays(models):
    mean_filter = np.asarray(models["alice"].layers[0].kernel).mean(axis=-1).ravel()
    message = np.resize([1, 0], 64)
    forged = keras_wm.WatermarkKey.from_arrays(
        np.outer(2.0 * message - 1, mean_filter), message
    )
    parties = [
        keras_wm.Party(ALICE, models["alice"]),
        keras_wm.Party(forged, models["alice"]),
    ]
    assert "proves nothing" in repr(keras_wm.compare(models["alice"], parties))


def test_other_than_two_different_keys_are_refused(models):
    party = keras_wm.Party(ALICE, models["alice"])
    with pytest.raises(ValueError, match="Received: 1"):
        keras_wm.compare(models["both"], [party])
    with pytest.raises(ValueError, match="two keys"):
        keras_wm.compare(models["both"], [party, party])


def test_the_command_line_compares(models, tmp_path):
    ALICE.save(tmp_path / "alice.key")
    BOB.save(tmp_path / "bob.key")
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    keys = ("--key", tmp_path / "alice.key", "--key", tmp_path / "bob.key")

    def compared(disputed, alices, bobs, *options):
        originals = [
            part
            for name in (alices, bobs)
            for part in ("--original", tmp_path / f"{name}.keras")
        ]
        file = tmp_path / f"{disputed}.keras"
        return run("compare", file, *keys, *originals, *options)

    shown = compared("both", "alice", "both")
    assert shown.returncode == 0
    assert "first  Alice" in shown.stdout
    report = json.loads(compared("both", "both", "both", "--json").stdout)
    assert report["first"] is None
    assert compared("both", "both", "both").returncode == 1
    result = run("compare", tmp_path / "both.keras", *keys, "--original", "x.keras")
    assert result.returncode == 64
