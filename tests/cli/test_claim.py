"""keras-wm claim: from a marked file to a dated claim, and what refuses it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from keras_wm import Claim, WatermarkKey
from keras_wm.claims import ClaimedLayer, dated
from keras_wm.claims.dating import check_stamps
from keras_wm.research.attacks.forging.authority import years
from tests.claims.authority import Authority, needs_openssl
from tests.command_line import assert_fails, run, run_process
from tests.conftest import FIXED_SECRET, fixed_key
from tests.files.written import write_weights
from tests.marked_model import with_mark


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a key file, a model marked in slot 1, and another model."""
    folder = tmp_path_factory.mktemp("claims")
    kernel = np.random.default_rng(1).normal(size=(48, 32)).astype("float32")
    marked = with_mark(kernel, fixed_key().in_slot(1), 1).astype("float32")
    write_weights(folder / "model.weights.h5", marked)
    write_weights(folder / "other.weights.h5", kernel)
    fixed_key().save(folder / "owner.key")
    (folder / "names.txt").write_text("customer-17\ncustomer-18\ncustomer-19\n")
    return folder


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority whose certificates are valid for five years."""
    return Authority(tmp_path_factory.mktemp("tsa") / "a", "First")


@pytest.fixture(scope="module")
def later_authority(tmp_path_factory):
    """An authority whose certificates are valid for fifty years."""
    return Authority(tmp_path_factory.mktemp("tsa") / "b", "Second", valid=(-10, 50))


@pytest.fixture
def claim_file(folder, tmp_path):
    """The claim for the model."""
    path = tmp_path / "model.claim"
    recipients = ["--recipients", folder / "names.txt"]
    options = ["--layer", "c1:1", "-o", path, "--no-sandbox", *recipients]
    key = ["--key", folder / "owner.key"]
    result = run("claim", folder / "model.weights.h5", *key, *options)
    assert result.returncode == 0, result.stderr
    assert Claim.load(path).digest in result.stdout
    return path


def make(folder, *options, file="model.weights.h5", word=()):
    key = ["--key", folder / "owner.key"]
    return run("claim", *word, folder / file, *key, "--no-sandbox", *options)


def test_a_claim_names_the_layers_in_which_the_mark_is_found(folder, tmp_path):
    path = tmp_path / "a.claim"
    for word in ((), ("make",)):
        result = make(folder, "--slots", 3, "-o", path, word=word)
        assert result.returncode == 0, result.stderr
        assert "marked layer: c1, slot 1, shape (48, 32)" in result.stdout
        assert FIXED_SECRET.hex() not in result.stdout
        assert Claim.load(path).layers == (ClaimedLayer("c1", 1, (48, 32)),)
        path.unlink()


def test_options_can_come_before_the_file(folder, tmp_path):
    path = tmp_path / "a.claim"
    command = ["claim", "--key", folder / "owner.key", "--slots", 2, "--no-sandbox"]
    assert run(*command, "-o", path, folder / "model.weights.h5").returncode == 0
    assert path.exists()


def test_a_file_with_the_name_of_a_command_needs_its_folder(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stamp").write_bytes((folder / "model.weights.h5").read_bytes())
    options = ["--key", folder / "owner.key", "--slots", 2, "--no-sandbox"]
    assert run("claim", "stamp", *options).returncode == 64
    assert run("claim", "./stamp", *options).returncode == 0
    assert Claim.load("stamp.claim").layers[0].name == "c1"


@pytest.mark.parametrize("options", [[], ["--layer", "c1"], ["--layer", "c1:2"]])
def test_a_mark_that_is_not_there_is_not_claimed(folder, tmp_path, options):
    result = make(folder, *options, "-o", tmp_path / "a.claim")
    assert_fails(result, 2, "mark")
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_never_overwritten(folder, claim_file):
    before = claim_file.read_bytes()
    result = make(folder, "--slots", 2, "-o", claim_file)
    assert_fails(result, 2, "exists already and is not overwritten")
    assert claim_file.read_bytes() == before


def test_a_claim_can_name_everything_else(folder, claim_file, tmp_path):
    other = tmp_path / "next.claim"
    result = make(
        folder,
        *("--slots", 2, "-o", other, "--predecessor", claim_file, "--released"),
        *("--checkpoint", folder / "other.weights.h5"),
    )
    assert result.returncode == 0, result.stderr
    first, second = Claim.load(claim_file), Claim.load(other)
    assert second.predecessor == first.digest
    assert second.released
    assert second.checkpoint != second.model
    assert first.recipients.number == 3
    result = run("claim", "check", other)
    # Nothing was asked, so nothing is confirmed.
    assert result.returncode == 1
    shown = result.stdout
    assert "not checked: no certificates" in shown
    for text in ("before the claim was made", first.digest, second.checkpoint.weights):
        assert text in shown


def test_the_digest_is_printed_alone(claim_file):
    result = run("claim", "digest", claim_file)
    assert result.stdout == f"{Claim.load(claim_file).digest}\n"


@needs_openssl
def test_a_claim_is_stamped_renewed_and_checked_offline(
    folder, claim_file, authority, later_authority
):
    roots = ["--tsa-certificates", authority.roots]
    roots += ["--tsa-certificates", later_authority.roots]
    with authority.serving() as url:
        assert run("claim", "stamp", claim_file, "--tsa", url).returncode == 0
    with later_authority.serving() as url:
        assert run("claim", "renew", claim_file, "--tsa", url).returncode == 0
    claim = Claim.load(claim_file)
    dating = check_stamps(claim, [authority.roots, later_authority.roots], years(20))
    assert dating.renewals == 1
    asked = ["--model", folder / "model.weights.h5", "--key", folder / "owner.key"]
    asked += ["--recipients", folder / "names.txt", "--no-sandbox"]
    result = run("claim", "check", claim_file, *roots, *asked)
    assert result.returncode == 0, result.stderr
    for text in (
        "CONFIRMED",
        f"{dating.date:%Y-%m-%d %H:%M:%S} UTC, by CN=First TSA",
        "byte for byte",
        claim.digest,
    ):
        assert text in result.stdout
    report = json.loads(run("claim", "check", claim_file, *roots, "--json").stdout)
    assert report["valid"]
    assert report["date"] == dating.date.isoformat()


@pytest.fixture
def stamped(claim_file, authority):
    with authority.serving() as url:
        assert run("claim", "stamp", claim_file, "--tsa", url).returncode == 0
    return claim_file


@needs_openssl
def test_what_is_not_confirmed_exits_with_1(folder, stamped, later_authority, tmp_path):
    def refused(*options):
        result = run("claim", "check", stamped, *options, "--no-sandbox")
        assert result.returncode == 1
        assert "NOT CONFIRMED" in result.stdout
        return result.stdout

    assert "trusted root" in refused("--tsa-certificates", later_authority.roots)
    assert "another model" in refused("--model", folder / "other.weights.h5")
    fixed_key(33).save(tmp_path / "other.key")
    assert "another key" in refused("--key", tmp_path / "other.key")
    (tmp_path / "names.txt").write_text("customer-17\n")
    names = ["--recipients", tmp_path / "names.txt"]
    assert "not the same ones" in refused("--key", folder / "owner.key", *names)
    text = stamped.read_text()
    stamped.write_text(text.replace('"released": false', '"released": true'))
    assert "not dated" in refused("--tsa-certificates", later_authority.roots)


@needs_openssl
def test_the_same_weights_in_another_file_are_the_claimed_model(
    folder, stamped, authority, tmp_path
):
    from safetensors.numpy import save_file

    from keras_wm.files import open_model_file

    with open_model_file(folder / "model.weights.h5") as opened:
        (kernel,) = opened.kernels
        save_file({"x": kernel.read()}, tmp_path / "a.safetensors")
    options = ["--model", tmp_path / "a.safetensors", "--no-sandbox"]
    result = run("claim", "check", stamped, *options)
    assert result.returncode == 0
    assert "in another file" in result.stdout


@needs_openssl
def test_a_failed_stamp_leaves_the_claim_unchanged(claim_file, authority):
    before = claim_file.read_bytes()
    with authority.serving(lambda _: b"<html>", kind="text/html") as url:
        result = run("claim", "stamp", claim_file, "--tsa", url)
    assert_fails(result, 2, "text/html")
    assert_fails(run("claim", "renew", claim_file, "--tsa", "http://x"), 2, "to renew")
    assert claim_file.read_bytes() == before


@needs_openssl
def test_a_card_shows_the_claim_and_not_where_the_mark_is(stamped, authority):
    claim = Claim.load(stamped)
    result = run("claim", "card", stamped, "--tsa-certificates", authority.roots)
    assert result.returncode == 0
    date = dated(claim, authority.roots)
    for text in (claim.digest, claim.commitment, f"{date:%Y-%m-%d %H:%M:%S}"):
        assert text in result.stdout
    for secret in ("(48, 32)", " c1", claim.nonce, *claim.slots, claim.model.weights):
        assert secret not in result.stdout
    assert claim.digest in run("claim", "card", stamped).stdout


def test_an_opened_slot_verifies_and_belongs_to_the_claim(folder, claim_file, tmp_path):
    opened = tmp_path / "slot1.key"
    key = ["--key", folder / "owner.key"]
    result = run("claim", "open", claim_file, *key, "--slot", 1, "-o", opened)
    assert result.returncode == 0, result.stderr
    assert opened.stat().st_mode & 0o777 == 0o600
    verify = ["verify", folder / "model.weights.h5", "--no-sandbox", "--key"]
    shown, whole = run(*verify, opened), run(*verify, folder / "owner.key")
    assert shown.returncode == 0, shown.stderr
    assert "one slot" in shown.stdout
    # The owner's key looks into slot 0 unless it is asked for more.
    assert whole.returncode == 1
    check = ["claim", "check", claim_file, "--opening"]
    assert run(*check, opened).returncode == 0
    fixed_key(secret=bytes(32)).open_slot(1).save(tmp_path / "forged.key")
    refused = run(*check, tmp_path / "forged.key")
    assert refused.returncode == 1
    assert "another key" in refused.stdout


def test_a_slot_that_is_not_claimed_cannot_be_opened(folder, claim_file, tmp_path):
    key = ["--key", folder / "owner.key"]
    result = run("claim", "open", claim_file, *key, "--slot", 2, "-o", tmp_path / "k")
    assert_fails(result, 2, "another seed for slot 2")
    assert not (tmp_path / "k").exists()


def test_a_recipients_slot_is_opened_with_its_proof(folder, claim_file, tmp_path):
    opened = tmp_path / "customer.key"
    options = ["--key", folder / "owner.key", "--slot", 0, "-o", opened]
    named = ["--recipient", "customer-18", "--recipients", folder / "names.txt"]
    result = run("claim", "open", claim_file, *options, *named)
    assert result.returncode == 0, result.stderr
    assert run("claim", "check", claim_file, "--opening", opened).returncode == 0
    key = WatermarkKey.load(opened)
    assert (key.recipient, key.slot, key.certified) == ("customer-18", 0, False)
    other = fixed_key().for_recipient("customer-20").open_slot(0, key.membership)
    other.save(tmp_path / "other.key")
    refused = run("claim", "check", claim_file, "--opening", tmp_path / "other.key")
    assert refused.returncode == 1
    assert "does not belong to the claim's list" in refused.stdout


def test_a_file_that_is_not_a_claim_exits_with_2(folder, tmp_path):
    for command in ("check", "card", "digest"):
        assert_fails(run("claim", command, folder / "owner.key"), 2, "another kind")
    assert_fails(run("claim", "check", tmp_path / "none"), 2, "Cannot read the claim")


def test_the_help_shows_both_forms():
    for arguments in ([], ["--help"]):
        result = run("claim", *arguments)
        # Without a command it is an error, but not for click before 8.2.
        assert result.returncode in ((0,) if arguments else (0, 64))
        shown = result.stdout
        assert "FILE --key KEY" in shown
        for command in ("make", "stamp", "renew", "check", "card", "digest", "open"):
            assert command in shown


@pytest.mark.study
def test_a_verification_without_a_claim_does_not_import_this_room(folder):
    program = (
        "import sys; sys.argv[1:1] = ['verify', '--no-sandbox']\n"
        "from keras_wm.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 1\n"
        "print([name for name in sys.modules if name.startswith('keras_wm.claims')])"
    )
    options = ["--key", folder / "owner.key", folder / "model.weights.h5"]
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


@pytest.mark.study
def test_the_commands_do_not_import_keras(folder, tmp_path):
    # A module that cannot be imported stands in for Keras.
    (tmp_path / "keras.py").write_text("raise SystemExit('keras was imported')")
    options = ["--key", folder / "owner.key", "--slots", 2, "-o", tmp_path / "a.claim"]
    made = run_process(
        "claim", folder / "model.weights.h5", *options, PYTHONPATH=str(tmp_path)
    )
    assert made.returncode == 0, made.stderr
    checked = run_process(
        *("claim", "check", tmp_path / "a.claim"),
        *("--model", folder / "model.weights.h5"),
        PYTHONPATH=str(tmp_path),
    )
    assert checked.returncode == 0, checked.stderr
