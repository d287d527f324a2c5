"""The commands of owners and verifiers: output, exit status and errors."""

import json

import h5py
import numpy as np
import pytest

from keras_wm import WatermarkKey
from tests.command_line import PATIENT, assert_fails, run, run_process
from tests.conftest import FIXED_SECRET, fixed_key
from tests.files.written import write_endless


@pytest.fixture
def keyfile(marked, tmp_path):
    path = tmp_path / "owner.key"
    marked.key.save(path)
    return path


def test_keygen_writes_a_key_and_prints_its_commitment(tmp_path):
    path = tmp_path / "owner.key"
    result = run("keygen", path, "--owner", "Example Ltd", "--bits", 128)
    assert result.returncode == 0
    key = WatermarkKey.load(path)
    assert (key.owner, key.bits) == ("Example Ltd", 128)
    assert key.commitment in result.stdout
    assert key._source.secret.reveal() not in result.stdout + result.stderr


def test_keygen_does_not_replace_a_key(tmp_path):
    path = tmp_path / "owner.key"
    fixed_key().save(path)
    before = path.read_bytes()
    result = run("keygen", path, "--owner", "x")
    assert_fails(result, 2, "exists already and is not overwritten. Choose another")
    assert "overwrite=" not in result.stderr
    assert path.read_bytes() == before


def test_verify_exits_with_0_if_the_mark_is_found(marked, keyfile):
    result = run_process("verify", marked.files[".keras"], "--key", keyfile)
    assert result.returncode == 0
    assert "PROVEN" in result.stdout
    assert "0 of 64" in result.stdout
    assert FIXED_SECRET.hex() not in result.stdout


def test_verify_exits_with_1_if_the_mark_is_not_found(marked, tmp_path):
    path = tmp_path / "stranger.key"
    fixed_key(64, secret=b"\x07" * 32).save(path)
    result = run("verify", marked.files[".keras"], "--key", path)
    assert result.returncode == 1
    assert "NOT FOUND" in result.stdout


def test_verify_prints_one_json_object(marked, keyfile):
    result = run(
        "verify", marked.files[".h5"], "--key", keyfile, "--json", "--layer", "wide"
    )
    report = json.loads(result.stdout)
    assert (report["ber"], report["kernels_tried"]) == (0, 1)


def test_an_unreadable_file_exits_with_2_and_one_line(marked, keyfile, tmp_path):
    assert_fails(run("verify", tmp_path / "no.keras", "--key", keyfile), 2, "no.keras")
    assert_fails(run("verify", keyfile, "--key", keyfile), 2, "owner.key")
    assert_fails(
        run("verify", marked.files[".h5"], "--key", tmp_path / "no.key"), 2, "no.key"
    )
    missing = run("verify", marked.files[".h5"], "--key", keyfile, "--layer", "nowhere")
    assert_fails(missing, 2, "'nowhere'")


@pytest.mark.parametrize(
    "arguments",
    [["verify"], ["verify", "x"], ["no-such-command"], ["demo", "--n", "a"]],
)
def test_wrong_usage_exits_with_64(arguments):
    result = run(*arguments)
    assert result.returncode == 64
    assert "Usage" in result.stderr


@pytest.mark.parametrize(
    ("options", "received"),
    [
        (["--reordered"], "--reordered"),
        (["--reference", "mine.keras", "--reordered"], "--reference, --reordered"),
        (["--layer", "a", "--layer", "b"], "several --layer"),
    ],
)
def test_recipients_exclude_options_that_identification_has_not(options, received):
    listed = ("--recipients", "customers.txt")
    result = run("verify", "x.keras", "--key", "owner.key", *listed, *options)
    assert result.returncode == 64
    message = " ".join(result.stderr.replace("│", " ").split())
    assert f"Received: {received}." in message
    assert "`keras-wm derive`" in message


def test_a_passphrase_comes_from_the_environment(marked, tmp_path):
    path, file = tmp_path / "owner.key", marked.files[".keras"]
    marked.key.save(path, "correct horse")
    right = run("verify", file, "--key", path, KERAS_WM_PASSPHRASE="correct horse")
    assert right.returncode == 0
    wrong = run("verify", file, "--key", path, KERAS_WM_PASSPHRASE="wrong")
    assert_fails(wrong, 2, "is wrong")
    assert_fails(run("verify", file, "--key", path), 2, "is encrypted")


@pytest.mark.parametrize("given", ["w", "b"])
def test_a_key_pair_of_the_reference_code_verifies_a_file_of_keras_1(tmp_path, given):
    # The reference code writes X with the shape (M, T) and a message of ones. It reads
    # the bits from the mean over the filters of a convolution "W".
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 3, 16, 64)).astype(np.float32)
    write_keras_1(
        tmp_path / "weights.h5",
        convolution2d_1={"W": rng.normal(size=(3, 3, 3, 16)), "b": np.zeros(16)},
        batchnormalization_1={name: np.ones(16) for name in ("gamma", "running_std")},
        convolution2d_2={"W": kernel, "b": np.zeros(64)},
        dense_1={"W": rng.normal(size=(64, 10)), "b": np.zeros(10)},
    )
    mean_filter = kernel.mean(axis=-1).reshape(-1)
    x = rng.normal(size=(mean_filter.size, 100))
    np.save(tmp_path / "a_w.npy", x * np.sign(mean_filter @ x))
    np.save(tmp_path / "a_b.npy", np.ones((1, 100), int))
    key = tmp_path / f"a_{given}.npy"
    result = run("verify", tmp_path / "weights.h5", "--key", key, "--json")
    found = json.loads(result.stdout)
    assert (result.returncode, found["ber"], found["bits"]) == (0, 0.0, 100)
    assert found["layer"].startswith("convolution2d_2")
    assert any("proves nothing by itself" in note for note in found["notes"])


def write_keras_1(path, **layers):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            group = file.create_group(name)
            names = [f"{name}_{variable}" for variable in arrays]
            group.attrs["weight_names"] = [weight.encode() for weight in names]
            for weight, array in zip(names, arrays.values(), strict=True):
                group[weight] = np.asarray(array, np.float32)


def test_half_of_a_key_pair_and_other_arrays_are_refused(marked, tmp_path):
    np.save(tmp_path / "a_w.npy", np.ones((3, 2)))
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    for name, complaint in (("a_w.npy", "a_b.npy"), ("x.npy", "NAME_w.npy")):
        result = run("verify", marked.files[".keras"], "--key", tmp_path / name)
        assert_fails(result, 2, complaint)


def test_inspect_lists_kernels_with_their_capacity(marked):
    table = run("inspect", marked.files[".keras"])
    assert table.returncode == 0
    assert "3x3x16x32" in table.stdout
    report = json.loads(run("inspect", marked.files[".keras"], "--json").stdout)
    assert [kernel["layer"] for kernel in report["kernels"]] == [
        "narrow",
        "wide",
        "logits",
    ]


def test_publish_removes_all_metadata(marked, keyfile, tmp_path):
    source, target = tmp_path / "mine.keras", tmp_path / "public.keras"
    marked.model.save(source)
    assert marked.key.commitment.encode() in source.read_bytes()
    result = run("publish", source, target)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert marked.key.commitment.encode() not in target.read_bytes()
    assert b"keras_wm" not in target.read_bytes()
    assert run("verify", target, "--key", keyfile).returncode == 0
    again = run("publish", source, target)
    assert_fails(again, 2, "exists already")
    assert "Choose another name, or replace it with --force." in again.stderr
    assert run("publish", source, target, "--force").returncode == 0
    assert_fails(
        run("publish", tmp_path / "no.keras", target, "--force"), 2, "no.keras"
    )


def test_help_lists_the_commands_in_the_order_of_use():
    result = run("--help")
    assert result.returncode == 0
    commands = ["keygen", "publish", "verify", "scan", "inspect", "compare", "derive"]
    commands += ["evaluate", "experiment", "demo", "slmc"]
    places = [result.stdout.index(f"│ {command} ") for command in commands]
    assert places == sorted(places)


def test_a_file_that_hangs_its_reader_is_an_error(keyfile, tmp_path):
    endless = write_endless(tmp_path / "endless.h5")
    for command in (["verify", endless, "--key", keyfile], ["inspect", endless]):
        limits = ("--limit", "cpu_seconds=1", *PATIENT)
        result = run(*command, *limits)
        assert_fails(result, 2, "more than Limits.cpu_seconds=1")


def test_the_sandbox_makes_no_difference_to_a_good_file(marked, keyfile):
    arguments = ["verify", marked.files[".keras"], "--key", keyfile]
    without = run(*arguments, "--no-sandbox")
    assert without.returncode == 0
    assert run(*arguments).stdout == without.stdout
