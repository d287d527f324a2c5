"""The demo, small, and what TensorBoard shows of it."""

import contextlib
import io
import json
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.error import URLError

import numpy as np
import pytest
from rich.console import Console

from tests.conftest import FIXED_SECRET, fixed_key

BITS = 64


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A short demo on 420 made-up pictures: its folder, networks and output."""
    from keras_wm.research.demo import DemoSettings, run_demo

    folder = tmp_path_factory.mktemp("demo")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 480)
    x = rng.integers(0, 120, (480, 8, 8, 1)) + 40 * y[:, None, None, None]
    np.savez(
        folder / "made.npz",
        x_train=x[:420],
        y_train=y[:420],
        x_test=x[420:],
        y_test=y[420:],
    )
    fixed_key(BITS, owner="Example Ltd").save(folder / "owner.key")
    settings = DemoSettings(
        data=str(folder / "made.npz"),
        epochs=10,
        bits=BITS,
        layer="conv2_block1_conv2",
        k=2,
    )
    console = Console(file=io.StringIO(), width=100)
    networks = run_demo(settings, folder, console)
    return folder, networks, console.file.getvalue()


def test_the_mark_is_in_the_published_file_alone(demo):
    _, networks, _ = demo
    marked, unmarked = (networks[name].verification for name in ("marked", "unmarked"))
    assert marked.ber == 0
    assert marked.log10_p_hard == pytest.approx(-BITS * np.log10(2))
    assert marked.log10_p_soft < marked.log10_p_hard
    # The twin's p-value is below 0.01 with probability 0.01; key and seed are fixed.
    assert unmarked.log10_p > -2


def test_the_bit_error_rate_falls_from_chance_to_0(demo):
    _, networks, _ = demo
    ber = networks["marked"].history["ber"]
    assert ber[0] > 0.25  # By chance below that with probability under 1e-4.
    assert ber[-1] == 0
    assert len(ber) == len(networks["marked"].history["test_accuracy"]) == 11


def test_the_demo_leaves_what_it_says(demo):
    folder, networks, output = demo
    assert {"owner.key", "marked.keras", "unmarked.keras", "demo.png", "logs"} <= {
        path.name for path in folder.iterdir()
    }
    record = json.loads((folder / "demo.json").read_text())
    assert record["marked"]["verification"]["ber"] == 0
    assert record["marked"]["test_error"] == networks["marked"].test_error
    for words in ("PROVEN", "NOT FOUND", "0 of 64", "epoch  10  BER 0.000"):
        assert words in output
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_of_the_key_is_in_anything_but_the_key_file(demo):
    folder, _, _ = demo
    key = fixed_key(BITS)
    traces = [FIXED_SECRET, FIXED_SECRET.hex().encode(), b"Example Ltd"]
    traces += [row.tobytes() for row in key.matrix(9 * 32)[:4]]
    traces += [row.astype("float32").tobytes() for row in key.matrix(9 * 32)[:4]]
    written = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("owner.key", "demo.json")
    ]
    assert any("tfevents" in path.name for path in written)
    for path in written:
        content = path.read_bytes()
        assert not any(trace in content for trace in traces), path


def test_a_second_demo_keeps_the_key(demo):
    from keras_wm.research.demo import _owner_key

    folder, _, _ = demo
    assert _owner_key(folder / "owner.key", BITS) == fixed_key(BITS)
    with pytest.raises(ValueError, match=r"key of 64 bits\. Expected 128"):
        _owner_key(folder / "owner.key", 128)


def test_tensorboard_serves_the_bit_error_rate(demo):
    folder, networks, _ = demo
    with tensorboard_server(folder / "logs") as address:
        scalars = f"{address}/data/plugin/scalars"
        runs = eventually(lambda: fetch(f"{scalars}/tags"), "run-1/marked/train")
        assert "epoch_ber" in runs["run-1/marked/train"]
        assert "epoch_ber" not in runs.get("run-1/unmarked/train", {})
        query = "run=run-1%2Fmarked%2Ftrain&tag=epoch_ber"
        served = [value for _, _, value in fetch(f"{scalars}/scalars?{query}")]
        assert served == pytest.approx(networks["marked"].history["ber"][1:])
        images = fetch(f"{address}/data/plugin/images/tags")
        assert "recovered bits" in str(images["run-1/marked/bits"])
        histograms = fetch(f"{address}/data/plugin/histograms/tags")
        assert "conv2_block1_conv2/z" in histograms["run-1/marked/bits"]


@contextlib.contextmanager
def tensorboard_server(logs):
    """TensorBoard on a free port of the loopback interface; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "tensorboard.main", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, *command, "--logdir", str(logs), "--load_fast", "false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def eventually(look, wanted):
    """What `look` gives once it holds what is wanted; the server needs a moment."""
    for _ in range(240):
        with contextlib.suppress(URLError, ConnectionError):
            found = look()
            if wanted in found:
                return found
        time.sleep(0.25)
    raise AssertionError(f"{wanted!r} never appeared")


def fetch(address):
    with urllib.request.urlopen(address) as answer:
        return json.load(answer)
