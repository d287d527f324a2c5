"""A small run of the demo, and TensorBoard on its logs."""

import contextlib
import io
import json
import re
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

BITS, EPOCHS = 64, 10

# Without TensorFlow, which TensorBoard does not need here, it starts in half the time.
TENSORBOARD = """
import sys
sys.modules["tensorflow"] = None
from tensorboard.main import run_main
run_main()
"""


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
        epochs=EPOCHS,
        bits=BITS,
        layer="conv2_block1_conv2",
        k=2,
    )
    console = Console(file=io.StringIO(), width=100)
    networks = run_demo(settings, folder, console)
    return folder, networks, console.file.getvalue()


def test_the_mark_is_only_in_the_marked_file(demo):
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
    # The probability of less than 0.25 by chance is below 1e-4.
    assert ber[0] > 0.25
    assert ber[-1] == 0
    for network in networks.values():
        assert len(network.history["test_accuracy"]) == len(ber) == EPOCHS + 1


def test_the_demo_writes_its_files_and_prints_its_results(demo):
    folder, networks, output = demo
    assert {"owner.key", "marked.keras", "unmarked.keras", "demo.png", "logs"} <= {
        path.name for path in folder.iterdir()
    }
    record = json.loads((folder / "demo.json").read_text())
    assert record["marked"]["verification"]["ber"] == 0
    assert record["marked"]["test_error"] == networks["marked"].test_error
    assert re.search(r"epoch   0  BER 0\.[345]\d\d  test accuracy 0\.\d+ ", output)
    for words in ("PROVEN", "NOT FOUND", "0 of 64", f"epoch  {EPOCHS}  BER 0.000"):
        assert words in output
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_only_the_key_file_contains_traces_of_the_key(demo):
    folder, _, _ = demo
    rows = fixed_key(BITS).for_shape((9 * 32, 32)).matrix[:4]
    traces = [FIXED_SECRET, FIXED_SECRET.hex().encode()]
    traces += [row.tobytes() for row in rows]
    traces += [row.astype("float32").tobytes() for row in rows]
    written = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("owner.key", "demo.json")
    ]
    assert any("tfevents" in path.name for path in written)
    for path in written:
        content = path.read_bytes()
        assert not any(trace in content for trace in traces), path
        # The card of the marks in the owner's own log names the owner.
        assert "tfevents" in path.name or b"Example Ltd" not in content


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
        values = [value for _, _, value in fetch(f"{scalars}/scalars?{query}")]
        assert values == pytest.approx(networks["marked"].history["ber"][1:])
        images = fetch(f"{address}/data/plugin/images/tags")
        assert "recovered bits" in str(images["run-1/marked/bits"])
        histograms = fetch(f"{address}/data/plugin/histograms/tags")
        assert "conv2_block1_conv2/z" in histograms["run-1/marked/bits"]
        # Keras's own callback draws the curves, so they are not drawn twice.
        assert "run-1/marked/bits" not in runs


@contextlib.contextmanager
def tensorboard_server(logs):
    """Runs TensorBoard on a free port of the loopback interface; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"host": "127.0.0.1", "port": port, "logdir": logs, "load_fast": "false"}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    server = subprocess.Popen(
        [sys.executable, "-c", TENSORBOARD, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def eventually(request, expected):
    """Repeats a request until its result contains an item: the server needs time."""
    for _ in range(240):
        with contextlib.suppress(URLError, ConnectionError):
            result = request()
            if expected in result:
                return result
        time.sleep(0.25)
    raise AssertionError(f"{expected!r} never appeared")


def fetch(address):
    with urllib.request.urlopen(address) as response:
        return json.load(response)
