"""verify with the owner's own network at hand, and by the key alone."""

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
from keras_wm.research.attacks.pruning import PRUNING
from keras_wm.research.attacks.quantization import QUANTIZATION
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
    """The owner's files, and those of who rearranged what they published."""

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
    """The same network, all of whose layers have other names."""
    other = convolutional(prefix="zz_")
    other.set_weights(network.get_weights())
    return other


def found(case, suspect, reference=None, **options):
    reference = case.file("owners", ".keras") if reference is None else reference
    return keras_wm.verify(suspect, case.key, reference=reference, **options)


def results_of(verification):
    return {attempt.name: attempt.result for attempt in verification.attempts}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("reference", [".keras", ".h5", "memory"])
def test_a_rearranged_copy_is_found_by_the_owners_own(case, suffix, reference):
    path = case.file("suspect", suffix)
    assert not keras_wm.verify(path, case.key).marked
    owners = case.owners if reference == "memory" else case.file("owners", reference)
    verification = found(case, path, owners)
    assert verification.log10_p < -30
    assert verification.layer.startswith(LAYER)


@pytest.mark.parametrize("suffix", [*SUFFIXES, "memory"])
@pytest.mark.parametrize("change", [renamed, wrapped])
def test_other_names_and_models_around_it_do_not_hide_it(
    case, suffix, change, tmp_path
):
    changed = change(case.suspect)
    save(changed, tmp_path, "a")
    path = changed if suffix == "memory" else tmp_path / f"a{suffix}"
    verification = found(case, path, layer=LAYER)
    assert verification.log10_p < -30
    assert LAYER in verification.layer


def test_names_that_were_exchanged_do_not_hide_it(case, tmp_path):
    """Two layers of one shape have each other's names."""
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


def test_another_head_does_not_hide_it_in_a_residual_network(case):
    def build(classes):
        return wide_resnet((8, 8, 1), classes, n=1, k=1)

    layer = "conv3_block1_conv2"
    owners = put_mark(with_weights(build(10)), layer, case.key)
    suspect = with_another_head(equivalence.CHAINED(owners, seed=5), build)
    verification = keras_wm.verify(suspect, case.key, layer, reference=owners)
    assert verification.log10_p < -30
    assert "without 1 of the 17 layers" in verification.notes[-1]
    assert "classifier" in verification.notes[-1]


def test_without_its_end_a_chain_of_layers_is_not_aligned_and_the_report_says_so(case):
    """Beside the kernel, nothing tells the order of what comes behind it."""
    suspect = with_another_head(case.suspect, convolutional)
    verification = found(case, suspect, layer=LAYER)
    assert not verification.marked
    assert list(results_of(verification)) == ["unaligned"]
    assert f"Cannot align {LAYER}/kernel" in verification.notes[-1]


def test_every_try_counts(case):
    path = case.file("suspect", ".keras")
    verification = found(case, path)
    each = results_of(verification)
    assert verification.tried == sum(one.tried for one in each.values())
    assert each["unaligned"].tried == each["aligned"].tried > 1
    one_p = each["aligned"].detection.log10_p
    assert verification.log10_p == pytest.approx(one_p + np.log10(verification.tried))


def test_the_report_has_both_figures_and_what_was_done(case):
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
def test_neurons_that_were_added_are_told_and_do_not_hide_it(case, attack):
    suspect = equivalence.CHAINED(attack(case.owners, seed=2), seed=5)
    verification = found(case, suspect)
    assert verification.log10_p < -30
    (aligned,) = (one for one in verification.attempts if one.name == "aligned")
    assert aligned.undone["added"] == 8 + 12 + 10
    assert "30 neurons added" in dict(verification.rows())["aligned"]


def test_a_copy_that_was_not_touched_is_found_as_it_is_and_aligned(case):
    verification = found(case, case.file("owners", ".keras"))
    each = results_of(verification)
    assert all(one.log10_p < -30 for one in each.values())
    (aligned,) = (one for one in verification.attempts if one.name == "aligned")
    assert aligned.undone == {"moved": 0, "flipped": 0, "added": 0}


def test_a_named_layer_is_the_only_one_that_is_looked_at(case):
    verification = found(case, case.file("suspect", ".keras"), layer=LAYER)
    assert verification.tried == 2
    other = found(case, case.file("suspect", ".keras"), layer="third")
    assert other.tried == 2
    assert not other.marked


def test_a_layer_that_is_not_followed_is_looked_at_as_it_is(case):
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


def test_another_architecture_is_verified_as_it_is_and_the_report_says_why(case):
    other = with_weights(separated(), seed=3)
    verification = found(case, other)
    assert list(results_of(verification)) == ["unaligned"]
    assert not verification.marked
    assert "Not aligned" in verification.notes[-1]
    assert "reference model's architecture" in verification.notes[-1]


def test_a_reference_has_to_tell_how_its_layers_are_connected(case):
    with pytest.raises(AlignmentError, match=r"a \.keras file.*owners\.weights\.h5"):
        found(case, case.file("suspect", ".keras"), case.file("owners", ".weights.h5"))
    with pytest.raises(TypeError, match="Expected a model file"):
        found(case, case.file("suspect", ".keras"), 3)


def test_a_sandbox_gives_the_same_report(case):
    path = case.file("suspect", ".keras")
    here = found(case, path)
    assert found(case, path, sandbox=True).to_dict() == here.to_dict()


@pytest.mark.parametrize("change", ["cycle", "deep", "none", "lies", "text"])
def test_a_hostile_config_does_not_hide_it_where_names_or_places_tell(
    case, change, tmp_path
):
    suspect = tmp_path / "a.keras"
    renamed(case.suspect).save(tmp_path / "b.keras")
    with zipfile.ZipFile(tmp_path / "b.keras") as source:
        config = json.loads(source.read("config.json"))
        members = {name: source.read(name) for name in source.namelist()}
    members["config.json"] = hostile(config, change)
    with zipfile.ZipFile(suspect, "w") as target:
        for name, data in members.items():
            target.writestr(name, data)
    assert found(case, suspect, layer=LAYER).log10_p < -30


def hostile(config, change):
    """A config that is not what it should be, as bytes."""
    if change == "cycle":
        config["config"] |= {"input_layers": [["a", 0, 0]], "output_layers": []}
        config["config"]["layers"] = [
            {
                "class_name": "Dense",
                "name": one,
                "config": {"name": one},
                "inbound_nodes": [[[other, 0, 0, {}]]],
            }
            for one, other in ("ab", "ba")
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


def test_a_reference_of_a_hostile_config_is_refused(case, tmp_path):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(case.file("owners", ".keras")) as source:
        config = json.loads(source.read("config.json"))
        weights = source.read("model.weights.h5")
    for change in ("cycle", "deep", "none", "text"):
        write_archive(path, weights, hostile(config, change))
        with pytest.raises(AlignmentError, match="how its layers are connected"):
            found(case, case.file("suspect", ".keras"), path)


def test_layers_that_are_far_wider_are_not_read(case):
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


def test_layers_that_do_not_fit_each_other_are_told(case):
    """A normalization of more channels than the convolution in front of it has."""
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


def test_weights_that_are_not_finite_are_told(case):
    suspect = equivalence.CHAINED(case.owners, seed=5)
    kernel = suspect.get_layer("first").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    verification = found(case, suspect)
    assert "first/kernel holds NaN" in verification.notes[-1]


def test_weights_of_any_size_are_aligned(case, rng):
    """Whose squares no float32 holds, or whose filters are next to nothing."""
    suspect = equivalence.CHAINED(case.owners, seed=5)
    for name in ("first", LAYER, "third"):
        kernel = suspect.get_layer(name).kernel
        scales = 10.0 ** rng.uniform(-30, 30, kernel.shape[-1])
        kernel.assign(np.asarray(kernel) * scales)
    assert found(case, suspect, layer=LAYER).log10_p < -30


@pytest.mark.parametrize("change", [PRUNING, QUANTIZATION])
def test_pruning_and_rounding_on_top_do_not_hide_it(case, change):
    strength = {"pruning": 0.5, "quantization": 8}[change.name]
    suspect = change(case.suspect, strength=strength)
    assert found(case, suspect, layer=LAYER).log10_p < -30


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
def test_a_copy_quantized_by_keras_is_found_in_its_file(case, tmp_path):
    """Dense layers are what Keras quantizes."""
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


def test_unmarked_networks_give_no_more_of_the_mark_than_chance_by_a_file(case):
    """Scores of 12 networks: N(0, 1) in mean and spread, a false alarm in 2e9."""
    scores = []
    for seed in range(12):
        suspect = with_weights(convolutional(), seed + 1)
        aligned = results_of(found(case, suspect, layer=LAYER))["aligned"]
        scores.append(aligned.detection.z)
    scores = np.concatenate(scores)
    assert abs(np.mean(scores)) * np.sqrt(scores.size) < 6
    assert abs(np.std(scores) - 1) * np.sqrt(2 * scores.size) < 6


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("reference", [".keras", ".h5"])
@pytest.mark.parametrize(
    "writer", ["keras_2_12", "keras_2_15", "keras_3_3", "keras_3_15", "tf_keras_2_21"]
)
def test_files_of_every_keras_are_paired_with_each_other(writer, reference, suffix):
    """Nested models, layers that are not followed, and no names in some of them."""
    tiny = fixed_key(4, groups=2)
    verification = keras_wm.verify(
        DATA / f"{writer}{suffix}", tiny, reference=DATA / f"{writer}{reference}"
    )
    (aligned,) = (one for one in verification.attempts if one.name == "aligned")
    assert aligned.result.tried == 5
    assert aligned.undone == {"moved": 0, "flipped": 0, "added": 0}


def test_the_command_line_takes_a_reference(case, tmp_path):
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
