"""Keys of recipients, and identify: the recipient of a leaked copy."""

import json

import numpy as np
import pytest
from scipy import stats

import keras_wm
from keras_wm.scheme.detection import detect
from tests.command_line import assert_fails, run
from tests.conftest import FIXED_SECRET, fixed_key
from tests.marked_model import LAYER, with_mark

CUSTOMERS = [f"customer-{number}" for number in range(40)]


@pytest.fixture(scope="module")
def owner():
    return fixed_key(64)


@pytest.fixture(scope="module")
def plain(owner):
    """A kernel with the owner's mark."""
    kernel = np.random.default_rng(8).normal(size=(3, 3, 16, 24))
    return with_mark(kernel, owner, 0.5)


@pytest.fixture(scope="module")
def copies(owner, plain):
    """Copies of the kernel with the mark of each recipient."""
    return {
        name: with_mark(plain, owner.for_recipient(name), 0.5) for name in CUSTOMERS
    }


def model_of(kernel, name=LAYER):
    import keras

    layer = keras.layers.Conv2D(kernel.shape[-1], 3, use_bias=False, name=name)
    model = keras.Sequential([keras.Input((8, 8, 16)), layer])
    layer.kernel.assign(kernel)
    return model


def names(found):
    return {trace.recipient for trace in found.named}


def test_keys_of_recipients_are_independent(owner):
    derived = [owner.for_recipient(name) for name in CUSTOMERS]
    assert len({owner.commitment, *(key.commitment for key in derived)}) == 41
    kernels = [key.for_shape((50, 24)) for key in derived]
    marks = np.array(
        [(kernel.signs[:, None] * kernel.matrix).ravel() for kernel in kernels]
    )
    # 780 correlations of 1152 entries: one exceeds 0.18 with probability 1e-6.
    correlations = np.corrcoef(marks)[np.triu_indices(40, 1)]
    assert np.abs(correlations).max() < 0.18


def test_a_recipients_key_does_not_hold_the_owners_secret(owner, tmp_path):
    path = tmp_path / "customer.key"
    owner.for_recipient("customer-17").save(path)
    assert FIXED_SECRET.hex() not in path.read_text("utf-8")
    again = keras_wm.WatermarkKey.load(path)
    assert again == owner.for_recipient("customer-17")
    assert again.recipient == "customer-17"
    assert "'customer-17'" in repr(again)


def test_a_name_is_the_same_recipient_in_every_unicode_form(owner):
    assert owner.for_recipient("U\u0308") == owner.for_recipient("\u00dc")
    assert owner.for_recipient("a") != owner.for_recipient("a ")


def test_the_recipient_of_a_copy_is_named_and_nobody_else(owner, copies):
    for name in CUSTOMERS[:8]:
        found = keras_wm.identify(model_of(copies[name]), owner, CUSTOMERS, LAYER)
        assert names(found) == {name}
        assert found.own.log10_p < -9
        assert found.tests == 41


@pytest.mark.parametrize("count", [2, 3])
def test_all_recipients_are_named_in_the_mean_of_their_copies(owner, copies, count):
    mixed = [CUSTOMERS[number] for number in (3, 11, 29)[:count]]
    mean = np.mean([copies[name] for name in mixed], axis=0)
    found = keras_wm.identify(model_of(mean), owner, CUSTOMERS, LAYER, alpha=1e-6)
    assert names(found) == set(mixed)


def test_with_the_original_each_of_many_colluders_is_named(owner, plain, copies):
    mixed = CUSTOMERS[:12]
    mean = np.mean([copies[name] for name in mixed], axis=0)
    # Scaled filters do not count as a change.
    model = model_of(mean * np.linspace(0.5, 2, 24), name="another_name")
    blind = keras_wm.identify(model, owner, CUSTOMERS)
    found = keras_wm.identify(model, owner, CUSTOMERS, original=model_of(plain))
    assert names(blind) < set(mixed)
    assert names(found) == set(mixed)
    assert found.tests == 2 * blind.tests
    assert found.named[0].kernel_note == "change from the original"
    assert "change from the original" in repr(found)
    # The original has the owner's mark, and its change does not.
    assert found.own.log10_p < -9
    assert found.own.kernel_note == ""


def test_the_original_itself_names_nobody(owner, plain):
    model = model_of(plain)
    found = keras_wm.identify(model, owner, CUSTOMERS, original=model)
    assert found.named == []


def test_an_original_of_other_shapes_is_not_compared(owner, plain, copies):
    model = model_of(copies["customer-3"])
    found = keras_wm.identify(
        model, owner, CUSTOMERS[:5], original=model_of(plain[..., :20])
    )
    assert found.tests == 6
    assert names(found) == {"customer-3"}


def test_innocents_are_not_named_by_the_change_from_an_original(owner, plain, copies):
    """Kolmogorov-Smirnov test at 1e-6 of 400 innocent recipients."""
    mean = np.mean([copies[name] for name in CUSTOMERS[:3]], axis=0)
    innocent = [f"innocent {number}" for number in range(400)]
    found = keras_wm.identify(
        model_of(mean), owner, innocent, LAYER, original=model_of(plain)
    )
    assert found.named == []
    changes = [trace for trace in found.traces if trace.kernel_note]
    assert 100 < len(changes) < 300
    sums = [
        detect(mean - plain, owner.for_recipient(name)).z.sum() for name in innocent
    ]
    assert stats.kstest(np.array(sums) / 8, "norm").pvalue > 1e-6


def test_the_mark_of_one_recipient_is_not_evidence_against_another(owner, copies):
    # 400 innocent recipients with 64 scores each; Kolmogorov-Smirnov test at 1e-6.
    keys = [owner.for_recipient(f"innocent {number}") for number in range(400)]
    z = np.concatenate([detect(copies["customer-3"], key).z for key in keys])
    assert stats.kstest(z, "norm").pvalue > 1e-6


def test_p_values_are_corrected_for_recipients_and_kernels(owner, copies, marked):
    found = keras_wm.identify(marked.files[".keras"], owner, CUSTOMERS[:5])
    verified = keras_wm.verify(
        marked.files[".keras"], owner.for_recipient("customer-2")
    )
    (trace,) = (trace for trace in found.traces if trace.recipient == "customer-2")
    assert found.tests == 6 * verified.tried
    alone = trace.detection.log10_p
    assert trace.log10_p == pytest.approx(min(0, alone + np.log10(found.tests)))


def test_nobody_is_named_without_a_mark(owner, marked):
    found = keras_wm.identify(marked.files[".keras"], owner, CUSTOMERS)
    assert found.named == []
    assert "NONE FOUND" in repr(found)
    assert found.own.log10_p < -9  # The model of all tests has the owner's mark.


def test_a_report_can_be_written_as_json(owner, copies):
    found = keras_wm.identify(model_of(copies["customer-3"]), owner, CUSTOMERS, LAYER)
    report = json.loads(json.dumps(found.to_dict()))
    assert [trace["recipient"] for trace in report["named"]] == ["customer-3"]
    assert report["named"][0]["matches"] >= 60
    assert report["strongest_other"]["log10_p"] > -2
    assert "customer-3  p-value 10^-" in repr(found)


def test_a_model_without_capacity_names_nobody(copies):
    found = keras_wm.identify(model_of(copies["customer-3"]), fixed_key(9000), ["a"])
    assert found.named == []
    assert found.tests == 0
    assert "no kernel can hold" in repr(found)


def test_verify_reports_the_recipient_of_a_key(owner, copies):
    found = keras_wm.verify(
        model_of(copies["customer-3"]), owner.for_recipient("customer-3")
    )
    assert found.marked
    assert found.to_dict()["recipient"] == "customer-3"
    assert "customer-3" in repr(found)


def test_wrong_recipients_are_refused(owner, rng):
    derived = owner.for_recipient("customer-3")
    for make, complaint in (
        (lambda: owner.for_recipient(" "), "name of the key's recipient"),
        (lambda: owner.for_recipient(17), "recipient=17"),
        (lambda: derived.for_recipient("b"), "key of the recipient 'customer-3'"),
        (lambda: explicit(rng).for_recipient("b"), "no secret"),
        (lambda: keras_wm.identify("x.keras", derived, ["b"]), "'customer-3'"),
        (lambda: keras_wm.identify("x.keras", owner, []), "at least one"),
        (lambda: keras_wm.identify("x.keras", owner, "abc"), "recipients='abc'"),
        (lambda: keras_wm.identify("x.keras", owner, ["b", "b"]), "'b' 2 times"),
    ):
        with pytest.raises(ValueError, match=complaint):
            make()


def explicit(rng):
    return keras_wm.WatermarkKey.from_arrays(rng.normal(size=(4, 9)), [0, 1, 1, 0])


@pytest.fixture
def leak(owner, copies, tmp_path):
    """A leaked file, the owner's key file, and a list of recipients."""
    owner.save(tmp_path / "owner.key")
    model_of(copies["customer-3"]).save(tmp_path / "leaked.keras")
    (tmp_path / "customers.txt").write_text("\n".join([*CUSTOMERS, "", ""]))
    return tmp_path


def traced(leak, *options):
    """Runs the command that names the recipients of the leaked file."""
    listed = ("--recipients", leak / "customers.txt")
    key = ("--key", leak / "owner.key")
    return run("verify", "--no-sandbox", leak / "leaked.keras", *key, *listed, *options)


def test_the_command_line_names_the_recipient(leak):
    result = traced(leak)
    assert result.returncode == 0
    assert "customer-3  p-value" in result.stdout
    assert FIXED_SECRET.hex() not in result.stdout
    result = traced(leak, "--layer", LAYER, "--json")
    assert json.loads(result.stdout)["named"][0]["recipient"] == "customer-3"
    (leak / "customers.txt").write_text("nobody\n")
    assert traced(leak).returncode == 1


def test_the_command_line_compares_with_the_original(leak, plain):
    model_of(plain).save(leak / "mine.keras")
    command = ("verify", leak / "leaked.keras", "--key", leak / "owner.key")
    original = ("--original", leak / "mine.keras")
    listed = ("--recipients", leak / "customers.txt")
    result = run(*command, *listed, *original, "--json")
    (named,) = json.loads(result.stdout)["named"]
    assert named["recipient"] == "customer-3"
    assert named["kernel_note"] == "change from the original"
    refused = run(*command, *original)
    assert refused.returncode == 64
    assert "--recipients only" in refused.stderr


@pytest.mark.parametrize(
    "content",
    [
        # With a byte order mark and Windows line ends.
        b"\xef\xbb\xbfcustomer-3\r\nnobody\r\n",
        # With a separator that is not a line end.
        "customer-3\nnobody\u2028customer-4\n".encode(),
    ],
)
def test_each_line_of_a_file_is_a_name(leak, content):
    (leak / "customers.txt").write_bytes(content)
    result = traced(leak, "--json")
    found = json.loads(result.stdout)
    assert found["recipients_tried"] == 2
    assert [trace["recipient"] for trace in found["named"]] == ["customer-3"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("customer-3\n".encode("utf-16"), "Expected text in UTF-8, one name per line"),
        (b"\n  \n", "Received none in"),
    ],
)
def test_the_error_about_an_unreadable_list_names_the_file(leak, content, complaint):
    (leak / "customers.txt").write_bytes(content)
    result = traced(leak)
    assert_fails(result, 2, complaint)
    assert "customers.txt" in result.stderr


def test_the_command_line_derives_a_recipients_key(leak, owner):
    path = leak / "customer-17.key"
    result = run("derive", leak / "owner.key", "customer-17", path)
    assert result.returncode == 0
    derived = owner.for_recipient("customer-17")
    assert keras_wm.WatermarkKey.load(path) == derived
    assert derived.commitment in result.stdout
    assert path.stat().st_mode & 0o777 == 0o600
    again = run("derive", leak / "owner.key", "customer-17", path)
    assert_fails(again, 2, "exists already")


def test_a_bar_is_shown_on_a_terminal(owner, copies, capsys, monkeypatch):
    model = model_of(copies["customer-3"])
    keras_wm.identify(model, owner, CUSTOMERS, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    keras_wm.identify(model, owner, CUSTOMERS, progress=True)
    assert "recipients" in capsys.readouterr().err
