"""The standing of findings, and the handling of every choice."""

import inspect
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import typer

import keras_wm
from keras_wm.cli.app import app
from keras_wm.cli.options import RequiredStanding
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.secret_source import SecretSource
from keras_wm.verification import standing
from keras_wm.verification.standing import CHOICES, Handling, Standing
from tests.command_line import run
from tests.conftest import fixed_key
from tests.marked_model import with_mark

ROOT = Path(__file__).parents[2]
KEY = fixed_key(64)
# The commands' names of the arguments of `verify`, `identify`, `compare` and `scan`.
OPTIONS = {
    "file": "model",
    "layers": "layer",
    "originals": "original",
    "claims": "claim",
    "list_file": "list",
    "limit": "limits",
    "dask": "client",
    "as_json": "json",
}


def commands():
    group = typer.main.get_command(app)
    return {name: group.commands[name] for name in ("verify", "compare", "scan")}


def test_every_argument_and_option_has_an_entry_in_the_table_of_choices():
    functions = (keras_wm.verify, keras_wm.identify, keras_wm.compare, keras_wm.scan)
    names = {name for call in functions for name in inspect.signature(call).parameters}
    names |= set(inspect.signature(keras_wm.Party).parameters)
    options = {
        OPTIONS.get(parameter.name, parameter.name)
        for command in commands().values()
        for parameter in command.params
    }
    assert names | options == CHOICES.keys()


def test_the_documentation_lists_every_choice_with_its_handling():
    text = (ROOT / "docs" / "disputes.md").read_text("utf-8")
    section = text.split("## How each choice is handled")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if "| `" in line]
    documented = [set(re.findall("`(.*?)`", row)) for row in rows]
    handled = {
        frozenset(name for name, way in CHOICES.items() if way is handling)
        for handling in Handling
    }
    assert set(map(frozenset, documented)) == handled


def test_the_commands_require_the_standings_that_can_be_required():
    for required in RequiredStanding:
        assert standing.meets(required, Standing.INDEPENDENT, -20)
    with pytest.raises(ValueError, match="required='private'"):
        standing.meets("private", Standing.PRIVATE, -300)


@pytest.mark.parametrize(
    ("basis", "log10_p", "evidence"),
    [
        ("independent", -19.3, True),  # 2**-64 is 10**-19.27.
        ("independent", -19.2, False),
        ("claimed", -9.1, True),
        ("claimed", -8.9, False),
        ("private", -300, False),
    ],
)
def test_evidence_needs_a_smaller_p_value_without_a_date(basis, log10_p, evidence):
    assert standing.is_evidence(Standing(basis), log10_p) == evidence
    assert standing.meets("claimed", Standing(basis), log10_p) == evidence
    independent = evidence and basis == "independent"
    assert standing.meets("independent", Standing(basis), log10_p) == independent


def model_of(*kernels):
    inputs = keras.Input((60,))
    layers = [
        keras.layers.Dense(40, use_bias=False, name=f"layer{number}")
        for number in range(len(kernels))
    ]
    model = keras.Model(inputs, [layer(inputs) for layer in layers])
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.kernel.assign(kernel)
    return model


def noise(count, seed=5):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(60, 40)).astype("float32") for _ in range(count)]


@pytest.fixture(scope="module")
def marked():
    return model_of(with_mark(noise(1)[0], KEY, 0.5), *noise(2, seed=6))


def research_key():
    source = KEY.payload() | {"groups": 8}
    return WatermarkKey(SecretSource(**source))


def solved_key(kernel):
    mean_filter = kernel.mean(axis=-1).ravel()
    message = np.resize([1, 0], 64)
    return WatermarkKey.from_arrays(np.outer(2.0 * message - 1, mean_filter), message)


@pytest.mark.parametrize("kind", ["arrays", "groups", "recipient"])
def test_a_key_with_a_free_part_is_private_and_every_report_says_so(kind):
    kernel = noise(1)[0]
    if kind == "arrays":
        key = solved_key(kernel)
    else:
        key = KEY.for_recipient("a") if kind == "recipient" else research_key()
        kernel = with_mark(kernel, key, 0.5)
    model = model_of(kernel)
    found = keras_wm.verify(model, key)
    assert (found.marked, found.standing) == (True, "private")
    first_line = repr(found).splitlines()[0]
    assert f"{found.verdict.upper()}, private: " in first_line
    assert "not evidence for anybody else" in first_line
    assert found._repr_html_().index("private") < found._repr_html_().index("p-value")
    report = json.loads(json.dumps(found.to_dict()))
    assert list(report)[:2] == ["verdict", "standing"]
    assert report["standing"] == "private"
    assert found.meets(None)
    assert not found.meets("claimed")


def test_a_private_finding_never_displaces_an_independent_one():
    # With the reference the p-value is smaller by many powers of ten, because half of
    # the filters of the suspect are permuted.
    rng = np.random.default_rng(4)
    layers = [
        keras.layers.Dense(60, "relu", name="first"),
        keras.layers.Dense(40, "relu", name="second"),
        keras.layers.Dense(20, name="third"),
    ]
    owners = keras.Sequential([keras.Input((30,)), *layers])
    for layer in layers:
        layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    first, second, _ = layers
    second.kernel.assign(with_mark(np.asarray(second.kernel), KEY, 0.9))
    suspect = keras.models.clone_model(owners)
    suspect.set_weights(owners.get_weights())
    order = np.arange(60)
    order[:30] = rng.permutation(30)
    suspect.layers[0].kernel.assign(np.asarray(first.kernel)[:, order])
    suspect.layers[1].kernel.assign(np.asarray(second.kernel)[order])
    found = keras_wm.verify(suspect, KEY, reference=owners)
    unaligned, aligned = found.attempts
    assert aligned.log10_p < unaligned.log10_p - 20
    assert (found.standing, found.verdict) == ("independent", "proven")
    assert found.log10_p == unaligned.log10_p_corrected
    assert aligned.standing == "private"
    # The private result is the best of two attempts at three kernels.
    assert aligned.counted == 2 * 3
    assert unaligned.counted == 3


def test_an_independent_finding_above_the_limit_asks_for_a_dated_commitment():
    # A mark with a p-value between 2**-64 and 1e-9.
    kernels = [
        with_mark(noise(1)[0], KEY, strength) for strength in np.arange(0.05, 0.5, 0.01)
    ]
    kernel = next(
        kernel for kernel in kernels if -18 < detect(kernel, KEY).log10_p < -11
    )
    found = keras_wm.verify(model_of(kernel), KEY)
    assert (found.verdict, found.standing) == ("marked", "independent")
    assert "older than the model" in repr(found).splitlines()[0]
    assert found.meets(None)
    assert not found.meets("independent")
    assert not found.meets("claimed")


def test_the_best_of_all_subsets_is_not_significant():
    """Reading those kernels as one that happen to fit is a choice, which is counted.

    Uncorrected, the best subset of 30 unmarked kernels has a p-value of about 1e-3.
    """
    kernels = noise(30, seed=8)
    z = [detect(kernel, KEY).z.sum() for kernel in kernels]
    order = np.argsort(z)[::-1]
    sizes = np.arange(1, 31)
    best = int(np.argmax(np.cumsum(np.array(z)[order]) / np.sqrt(64 * sizes))) + 1
    names = [f"layer{index}" for index in order[:best]]
    found = keras_wm.verify(model_of(*kernels), KEY, names)
    jointly = found.attempts[0]
    assert jointly.detection.log10_p < -2
    assert jointly.log10_p_corrected == 0


def test_a_requirement_that_is_not_met_changes_the_exit_status(marked, tmp_path):
    marked.save(tmp_path / "model.keras")
    KEY.save(tmp_path / "owner.key")
    copy = model_of(with_mark(noise(1)[0], KEY.for_recipient("a"), 0.5))
    copy.save(tmp_path / "copy.keras")
    KEY.for_recipient("a").save(tmp_path / "recipient.key")
    (tmp_path / "names.txt").write_text("a\nb\n")
    model = (tmp_path / "model.keras", "--key", tmp_path / "owner.key")
    leak = (tmp_path / "copy.keras", "--key", tmp_path / "recipient.key")
    names = (tmp_path / "copy.keras", "--key", tmp_path / "owner.key")
    names += ("--recipients", tmp_path / "names.txt")
    for command in (["verify", "--no-sandbox"], ["scan", "--workers", 1]):
        assert run(*command, *model, "--require", "independent").returncode == 0
        assert run(*command, *leak).returncode == 0
        required = run(*command, *leak, "--require", "claimed")
        assert required.returncode == 1
        assert "--require claimed" in required.stderr
        assert "private" in required.stdout
    verify = ["verify", "--no-sandbox"]
    assert run(*verify, *names).returncode == 0
    assert run(*verify, *names, "--require", "claimed").returncode == 1
    assert run(*verify, *model, "--require", "private").returncode == 64
