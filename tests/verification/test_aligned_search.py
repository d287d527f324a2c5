"""verify with the owner's model as a reference, and with reordered=True."""

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import keras_wm
from keras_wm.errors import AlignmentError
from keras_wm.research.attacks import equivalence, obfuscation
from keras_wm.research.attacks.architecture import weights_of
from keras_wm.research.attacks.perturbation import QUANTIZATION
from keras_wm.research.attacks.pruning import PRUNING
from keras_wm.research.hosts.wide_resnet import wide_resnet
from tests.command_line import assert_fails, run
from tests.conftest import fixed_key
from tests.files.formats.test_old_files import DATA
from tests.files.written import write_archive
from tests.marked_model import with_mark
from tests.research.attacks.networks import separated, with_weights

SUFFIXES = (".keras", ".h5", ".weights.h5")
LAYER = "second"


@dataclass(frozen=True)
class Case:
    """The owner's files, and those of a thief who permuted and scaled channels."""

    key: Any
    owners: Any
    suspect: Any
    folder: Path

    def file(self, name, suffix):
        return self.folder / f"{name}{suffix}"


def convolutional(classes=5, prefix=""):
    """Two convolutions with normalizations between, and a dense layer."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(16, 3, name=f"{prefix}first"),
            layers.BatchNormalization(name=f"{prefix}first_norm"),
            layers.ReLU(name=f"{prefix}first_relu"),
            layers.Conv2D(24, 3, name=f"{prefix}{LAYER}"),
            layers.BatchNormalization(name=f"{prefix}second_norm"),
            layers.ReLU(name=f"{prefix}second_relu"),
            layers.Conv2D(20, 3, name=f"{prefix}third"),
            layers.ReLU(name=f"{prefix}third_relu"),
            layers.GlobalAveragePooling2D(name=f"{prefix}mean"),
            layers.Dense(classes, name=f"{prefix}verdict"),
        ],
        name=f"{prefix}network",
    )


def put_mark(network, layer, key):
    """Writes a mark into a layer of a network."""
    (kernel,) = (
        variable
        for (name, which), variable in weights_of(network).items()
        if name == layer and which == "kernel"
    )
    kernel.assign(with_mark(np.asarray(kernel, np.float64), key, 2))
    return network


def save(network, folder, name):
    for suffix in (".keras", ".h5"):
        network.save(folder / f"{name}{suffix}")
    network.save_weights(folder / f"{name}.weights.h5")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    key = fixed_key(64)
    owners = put_mark(with_weights(convolutional()), LAYER, key)
    suspect = equivalence.CHAINED(owners, seed=5)
    save(owners, folder, "owners")
    save(suspect, folder, "suspect")
    return Case(key, owners, suspect, folder)


def wrapped(network, classes=3):
    """A network inside another one, with a head on top."""
    inputs = keras.Input(network.input_shape[1:])
    outputs = keras.layers.Dense(classes, name="head")(network(inputs))
    return keras.Model(inputs, outputs, name="wrapper")


def renamed(network):
    """The same network with other names of all layers."""
    other = convolutional(prefix="zz_")
    other.set_weights(network.get_weights())
    return other


def found(case, suspect, reference=None, **options):
    reference = case.file("owners", ".keras") if reference is None else reference
    return keras_wm.verify(suspect, case.key, reference=reference, **options)


def results_of(verification):
    return {attempt.name: attempt for attempt in verification.attempts}


def undone_in(verification):
    return results_of(verification)["aligned"].undone


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("reference", [".keras", ".h5", "memory"])
def test_a_rearranged_copy_is_found_with_the_owners_model(case, suffix, reference):
    path = case.file("suspect", suffix)
    assert not keras_wm.verify(path, case.key).marked
    owners = case.owners if reference == "memory" else case.file("owners", reference)
    verification = found(case, path, owners)
    assert verification.log10_p < -30
    assert verification.layer.startswith(LAYER)


@pytest.mark.parametrize("suffix", [*SUFFIXES, "memory"])
@pytest.mark.parametrize("change", [renamed, wrapped])
def test_other_names_or_an_outer_model_do_not_hide_the_mark(
    case, suffix, change, tmp_path
):
    changed = change(case.suspect)
    save(changed, tmp_path, "a")
    path = changed if suffix == "memory" else tmp_path / f"a{suffix}"
    verification = found(case, path, layer=LAYER)
    assert verification.log10_p < -30
    assert LAYER in verification.layer


def test_exchanged_names_do_not_hide_the_mark(case, tmp_path):
    """Two layers of one shape swap their names."""
    network = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(20, "relu", name="a"),
            keras.layers.Dense(20, "relu", name="b"),
            keras.layers.Dense(20, name="c"),
        ]
    )
    key = fixed_key(64)
    owners = put_mark(with_weights(network), "b", key)
    suspect = equivalence.CHAINED(owners, seed=5)
    other = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(20, "relu", name="b"),
            keras.layers.Dense(20, "relu", name="a"),
            keras.layers.Dense(20, name="c"),
        ]
    )
    other.set_weights(suspect.get_weights())
    other.save(tmp_path / "a.keras")
    verification = keras_wm.verify(tmp_path / "a.keras", key, reference=owners)
    assert verification.log10_p < -30
    assert verification.layer == "a/0"


def with_another_head(network, build):
    """A network whose last layer has another number of classes."""
    other = build(7)
    for theirs, ours in zip(other.layers[:-1], network.layers, strict=False):
        theirs.set_weights(ours.get_weights())
    return other


def test_another_head_does_not_hide_the_mark_in_a_residual_network(case):
    def build(classes):
        return wide_resnet((8, 8, 1), classes, n=1, k=1)

    layer = "conv3_block1_conv2"
    owners = put_mark(with_weights(build(10)), layer, case.key)
    suspect = with_another_head(equivalence.CHAINED(owners, seed=5), build)
    verification = keras_wm.verify(suspect, case.key, layer, reference=owners)
    assert verification.log10_p < -30
    assert "without 1 of the 17 layers" in verification.notes[-1]
    assert "classifier" in verification.notes[-1]


def test_a_chain_with_another_head_is_not_aligned_and_the_report_says_so(case):
    """Only the tested kernel itself shows the order of the channels after it."""
    suspect = with_another_head(case.suspect, convolutional)
    verification = found(case, suspect, layer=LAYER)
    assert not verification.marked
    assert list(results_of(verification)) == ["unaligned"]
    assert f"Cannot align {LAYER}/kernel" in verification.notes[-1]


def test_every_test_counts(case):
    path = case.file("suspect", ".keras")
    verification = found(case, path)
    results = results_of(verification)
    assert verification.tried == sum(result.tried for result in results.values())
    assert results["unaligned"].tried == results["aligned"].tried > 1
    log10_p = results["aligned"].detection.log10_p
    assert verification.log10_p == pytest.approx(log10_p + np.log10(verification.tried))


def test_the_report_shows_both_attempts_and_the_undone_changes(case):
    verification = found(case, case.file("suspect", ".keras"))
    rows = dict(verification.rows())
    assert "channels moved" in rows["aligned"]
    assert "bits wrong" in rows["unaligned"]
    again = json.loads(json.dumps(verification.to_dict()))
    aligned, unaligned = again["attempts"]["aligned"], again["attempts"]["unaligned"]
    assert aligned["log10_p_soft"] < -30 < unaligned["log10_p_soft"]
    assert aligned["moved"] > 0
    assert aligned["flipped"] > 0
    assert aligned["added"] == 0
    assert "channels moved" in verification._repr_html_()


@pytest.mark.parametrize(
    "attack",
    [obfuscation.ZERO_NEURONS, obfuscation.CLIQUE_NEURONS, obfuscation.SPLIT_NEURONS],
)
def test_added_neurons_are_reported_and_do_not_hide_the_mark(case, attack):
    suspect = equivalence.CHAINED(attack(case.owners, seed=2), seed=5)
    verification = found(case, suspect)
    assert verification.log10_p < -30
    assert undone_in(verification)["added"] == 8 + 12 + 10
    assert "30 neurons added" in dict(verification.rows())["aligned"]


def test_an_unchanged_copy_is_found_unaligned_and_aligned(case):
    verification = found(case, case.file("owners", ".keras"))
    results = results_of(verification)
    assert all(result.log10_p < -30 for result in results.values())
    assert undone_in(verification) == {"moved": 0, "flipped": 0, "added": 0}


def test_only_a_named_layer_is_tested(case):
    verification = found(case, case.file("suspect", ".keras"), layer=LAYER)
    assert verification.tried == 2
    other = found(case, case.file("suspect", ".keras"), layer="third")
    assert other.tried == 2
    assert not other.marked


def test_a_layer_whose_channels_are_not_followed_is_tested_unaligned(case):
    network = keras.Sequential(
        [
            keras.Input((6, 8)),
            keras.layers.LSTM(16, name="memory"),
            keras.layers.Dense(4, name="verdict"),
        ]
    )
    found = keras_wm.verify(network, case.key, "memory", reference=network)
    assert list(results_of(found)) == ["unaligned"]
    assert found.tried == 2
    assert "no layer 'memory' with a kernel" in found.notes[-1]
    with pytest.raises(keras_wm.LayerNotFoundError, match="memories"):
        keras_wm.verify(network, case.key, "memories", reference=network)


def test_another_architecture_is_tested_unaligned_and_the_report_says_why(case):
    other = with_weights(separated(), seed=3)
    verification = found(case, other)
    assert list(results_of(verification)) == ["unaligned"]
    assert not verification.marked
    assert "Not aligned" in verification.notes[-1]
    assert "reference model's architecture" in verification.notes[-1]


def test_a_reference_without_a_config_is_refused(case):
    with pytest.raises(AlignmentError, match=r"a \.keras file.*owners\.weights\.h5"):
        found(case, case.file("suspect", ".keras"), case.file("owners", ".weights.h5"))
    with pytest.raises(TypeError, match="Expected a model file"):
        found(case, case.file("suspect", ".keras"), 3)


def test_a_sandbox_gives_the_same_report(case):
    path = case.file("suspect", ".keras")
    here = found(case, path)
    assert found(case, path, sandbox=True).to_dict() == here.to_dict()


@pytest.mark.parametrize("change", ["cycle", "deep", "none", "lies", "text"])
def test_a_hostile_config_does_not_hide_the_mark(case, change, tmp_path):
    suspect = tmp_path / "a.keras"
    renamed(case.suspect).save(tmp_path / "b.keras")
    with zipfile.ZipFile(tmp_path / "b.keras") as source:
        config = json.loads(source.read("config.json"))
        members = {name: source.read(name) for name in source.namelist()}
    members["config.json"] = hostile(config, change)
    with zipfile.ZipFile(suspect, "w") as target:
        for name, data in members.items():
            target.writestr(name, data)
    verification = found(case, suspect, layer=LAYER)
    # Keras loads no model from these two, so that it uses no weight of the file.
    if change in ("cycle", "text"):
        assert verification.unused.log10_p < -30
    else:
        assert verification.log10_p < -30


def hostile(config, change):
    """A damaged or misleading config, as bytes."""
    if change == "cycle":
        config["config"] |= {"input_layers": [["a", 0, 0]], "output_layers": []}
        config["config"]["layers"] = [
            {
                "class_name": "Dense",
                "name": name,
                "config": {"name": name},
                "inbound_nodes": [[[caller, 0, 0, {}]]],
            }
            for name, caller in ("ab", "ba")
        ]
    elif change == "lies":
        for node in config["config"]["layers"]:
            node["config"] |= {"filters": -1, "units": "x", "axis": {}, "name": "one"}
    elif change == "deep":
        return b"[" * 10**6
    elif change == "none":
        return b"null"
    elif change == "text":
        config["config"]["layers"] = "layers"
    return json.dumps(config).encode()


def test_a_reference_with_a_hostile_config_is_refused(case, tmp_path):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(case.file("owners", ".keras")) as source:
        config = json.loads(source.read("config.json"))
        weights = source.read("model.weights.h5")
    for change in ("cycle", "deep", "none", "text"):
        write_archive(path, weights, hostile(config, change))
        with pytest.raises(AlignmentError, match="how its layers are connected"):
            found(case, case.file("suspect", ".keras"), path)


def test_layers_that_are_more_than_four_times_as_wide_are_not_read(case):
    layers = keras.layers
    suspect = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(16 * 5, 3, name="first"),
            layers.Conv2D(24 * 5, 3, name=LAYER),
            layers.Conv2D(20 * 5, 3, name="third"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="verdict"),
        ]
    )
    verification = found(case, suspect)
    assert "reference model's architecture" in verification.notes[-1]


def test_layers_that_do_not_fit_each_other_are_reported(case):
    """A normalization with more channels than the convolution before it."""
    path = case.file("suspect", ".weights.h5")
    odd = path.with_name("odd.weights.h5")
    shutil.copy(path, odd)
    with h5py.File(odd, "a") as file:
        for number in range(4):
            del file[f"layers/batch_normalization/vars/{number}"]
            file[f"layers/batch_normalization/vars/{number}"] = np.ones(20, "float32")
    verification = found(case, odd)
    assert not verification.marked
    assert "Received layers of 16, 20 neurons" in verification.notes[-1]


def test_weights_that_are_not_finite_are_reported(case):
    suspect = equivalence.CHAINED(case.owners, seed=5)
    kernel = suspect.get_layer("first").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    verification = found(case, suspect)
    assert "first/kernel holds NaN" in verification.notes[-1]


def test_weights_of_any_size_are_aligned(case, rng):
    """Squares of some weights overflow float32, and some filters are almost zero."""
    suspect = equivalence.CHAINED(case.owners, seed=5)
    for name in ("first", LAYER, "third"):
        kernel = suspect.get_layer(name).kernel
        scales = 10.0 ** rng.uniform(-30, 30, kernel.shape[-1])
        kernel.assign(np.asarray(kernel) * scales)
    assert found(case, suspect, layer=LAYER).log10_p < -30


@pytest.mark.parametrize("change", [PRUNING, QUANTIZATION])
def test_pruning_or_rounding_as_well_does_not_hide_the_mark(case, change):
    strength = {"pruning": 0.5, "quantization": 8}[change.name]
    suspect = change(case.suspect, strength=strength)
    assert found(case, suspect, layer=LAYER).log10_p < -30


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
def test_a_copy_that_keras_quantized_is_found_in_its_file(case, tmp_path):
    """Keras quantizes dense layers, so this network has no convolutions."""
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((24,)),
            layers.Dense(32, "relu", name="first"),
            layers.Dense(28, "relu", name=LAYER),
            layers.Dense(20, "relu", name="third"),
            layers.Dense(4, name="verdict"),
        ]
    )
    owners = put_mark(with_weights(network), LAYER, case.key)
    suspect = equivalence.CHAINED(owners, seed=5)
    suspect.quantize("int8")
    suspect.save(tmp_path / "a.keras")
    suspect.save(tmp_path / "a.h5")
    for name in ("a.keras", "a.h5"):
        found = keras_wm.verify(tmp_path / name, case.key, LAYER, reference=owners)
        assert found.log10_p < -30
        assert "int8" in found.notes[-1]


def test_unmarked_networks_score_no_more_than_chance_after_alignment(case):
    """The scores have the mean and the spread of N(0, 1): a false alarm in 1e9."""
    scores = {"aligned": [], "aligned with the checkpoint": []}
    suspect, before = convolutional(), with_weights(convolutional())
    for seed in range(12):
        other = with_weights(suspect, seed + 1)
        attempts = results_of(found(case, other, layer=LAYER, checkpoint=before))
        for name, of_name in scores.items():
            of_name.append(attempts[name].detection.z)
    for of_name in scores.values():
        z = np.concatenate(of_name)
        assert abs(np.mean(z)) * np.sqrt(z.size) < 6
        assert abs(np.std(z) - 1) * np.sqrt(2 * z.size) < 6


@pytest.mark.parametrize(
    ("writer", "suffix", "reference"),
    [
        # Each version of Keras once, and each pair of formats once.
        ("keras_2_12", ".keras", ".keras"),
        ("keras_2_15", ".h5", ".keras"),
        ("keras_3_3", ".weights.h5", ".keras"),
        ("keras_3_15", ".keras", ".h5"),
        ("tf_keras_2_21", ".h5", ".h5"),
        ("keras_3_15", ".weights.h5", ".h5"),
    ],
)
def test_files_of_every_keras_version_are_aligned(writer, suffix, reference):
    """Some have nested models, layers that are not followed, or no layer names."""
    tiny = fixed_key(4, groups=2)
    verification = keras_wm.verify(
        DATA / f"{writer}{suffix}", tiny, reference=DATA / f"{writer}{reference}"
    )
    assert results_of(verification)["aligned"].tried == 5
    assert undone_in(verification) == {"moved": 0, "flipped": 0, "added": 0}


def test_the_command_line_accepts_a_reference(case, tmp_path):
    key = tmp_path / "owner.key"
    case.key.save(key)
    suspect, owners = case.file("suspect", ".keras"), case.file("owners", ".keras")
    result = run("verify", suspect, "--key", key, "--reference", owners, "--json")
    assert result.returncode == 0
    report = json.loads(result.stdout)
    assert report["attempts"]["aligned"]["moved"] > 0
    bare = case.file("owners", ".weights.h5")
    refused = run("verify", suspect, "--key", key, "--reference", bare)
    assert_fails(refused, 2, "how its layers are connected")


def test_the_command_line_undoes_the_order_of_filters(tmp_path, rng):
    key = fixed_key(256)
    kernel = with_mark(rng.normal(size=(3, 3, 16, 32)), key, 2)
    layer = keras.layers.Conv2D(32, 3, use_bias=False)
    network = keras.Sequential([keras.Input((8, 8, 16)), layer])
    layer.kernel.assign(kernel[..., rng.permutation(32)])
    network.save(tmp_path / "a.keras")
    key.save(tmp_path / "owner.key")
    result = run(
        "verify", tmp_path / "a.keras", "--key", tmp_path / "owner.key", "--reordered"
    )
    assert result.returncode == 0
    assert "undone: " in result.stdout
