"""Compares the time of verifying a file with that of loading the model.

    python benchmarks/verify_speed.py [--megabytes 10 100 1000] [--rounds 3] [--huge]

Writes models of each size, as `.keras` and as `.h5`, into a temporary folder. For each
file, two whole processes alternate: `keras-wm verify --layer`, and a process that calls
`keras.models.load_model` and reads the same kernel. `--huge` adds a model of 10 GB,
which is verified but not loaded, because most machines lack the memory. `--http` serves
the largest model on loopback and prints the number of bytes sent.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import h5py
from rich.console import Console
from rich.table import Table

from keras_wm import WatermarkKey

LAYER, SIDE = "marked", 1024
OTHERS = 40
HUGE = 10_000
# Runs a program, and prints its peak memory with that of its largest child, in MB, and
# the bytes it read, in MB.
METER = """
import json, resource, sys
try:
    {program}
except SystemExit as exit_:
    if exit_.code not in (0, 1, None):
        raise
finally:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak = int(status["VmHWM"].split()[0]) + children
    read = next(int(line.split()[1]) for line in open("/proc/self/io"))
    print(json.dumps([peak / 1024, read / 1e6]), file=sys.stderr)
"""
VERIFY = "from keras_wm.cli import main; main()"
LOAD = (
    "import keras; model = keras.models.load_model(sys.argv[2]); "
    f"model.get_layer({LAYER!r}).kernel.numpy().sum()"
)


@dataclass(frozen=True)
class Run:
    """Duration, memory and bytes read of one whole process."""

    seconds: float
    peak_megabytes: float
    read_megabytes: float


def main() -> None:
    """Runs the comparisons and prints their tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--huge", action="store_true")
    parser.add_argument("--http", action="store_true")
    options = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        WatermarkKey.generate("benchmark").save(top / "owner.key")
        files = {size: write_models(top, size) for size in options.megabytes}
        if options.huge:
            files[HUGE] = write_huge(top)
        console.print(compare(files, top / "owner.key", options.rounds))
        if options.http:
            largest = files[max(options.megabytes)]
            console.print(over_http(largest, top / "owner.key"))


def write_models(folder: Path, megabytes: int) -> list[Path]:
    """Saves a model of a size in both formats: one layer to verify, and 40 others."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(1)
    units = max(8, int(((megabytes * 1e6 - 4 * SIDE**2) / 4 / OTHERS) ** 0.5))
    tensor = inputs = keras.Input((SIDE,))
    tensor = keras.layers.Dense(SIDE, name=LAYER)(tensor)
    zeros = keras.initializers.Zeros()  # Fast; the values do not matter.
    for index in range(OTHERS):
        layer = keras.layers.Dense(units, kernel_initializer=zeros, name=f"d{index}")
        tensor = layer(tensor)
    model = keras.Model(inputs, tensor)
    kernel = np.random.default_rng(1).normal(size=(SIDE, SIDE)) / SIDE**0.5
    model.get_layer(LAYER).kernel.assign(kernel)
    paths = [folder / f"{megabytes}.keras", folder / f"{megabytes}.h5"]
    for path in paths:
        model.save(path)
    return paths


def write_huge(folder: Path) -> list[Path]:
    """Writes a sparse file of 10 GB in the layout of Keras, without using Keras."""
    import numpy as np

    weights, archive = folder / f"{HUGE}.weights.h5", folder / f"{HUGE}.keras"
    units = int((HUGE * 1e6 / 4 / OTHERS) ** 0.5)
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple((units, units))
    with h5py.File(weights, "w") as file:
        for name in (LAYER, *(f"d{index}" for index in range(OTHERS))):
            variables = file.create_group(f"layers/{name}/vars")
            variables.attrs["name"] = name
            if name == LAYER:
                kernel = np.random.default_rng(1).normal(size=(SIDE, SIDE))
                variables["0"] = kernel.astype("float32")
                continue
            h5py.h5d.create(variables.id, b"0", h5py.h5t.IEEE_F32LE, space, plan)
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("metadata.json", "{}")
        target.writestr("config.json", "{}")
        target.write(weights, "model.weights.h5")
    return [archive, weights]


def compare(files: dict[int, list[Path]], key: Path, rounds: int) -> Table:
    """Returns a table of both processes, which alternate on every file."""
    runs: dict[tuple[Path, str], list[Run]] = {}
    for _ in range(rounds):
        for size, paths in files.items():
            for path in paths:
                verifying = ["verify", path, "--key", key, "--layer", LAYER]
                runs.setdefault((path, "verify"), []).append(measure(VERIFY, verifying))
                if size != HUGE:
                    loading = measure(LOAD, ["load", path])
                    runs.setdefault((path, "load"), []).append(loading)
    table = Table(
        "file", "keras-wm verify", "load_model", "load / verify", "smallest ratio"
    )
    for path in (path for paths in files.values() for path in paths):
        ours, theirs = runs[path, "verify"], runs.get((path, "load"), [])
        ratios = [b.seconds / a.seconds for a, b in zip(ours, theirs, strict=False)]
        table.add_row(
            path.name,
            _median(ours),
            _median(theirs) if theirs else "not loaded",
            f"{median(ratios):.1f}" if ratios else "",
            f"{min(ratios):.1f}" if ratios else "",
        )
    seconds = {
        path: median(run.seconds for run in runs[path, "verify"])
        for paths in files.values()
        for path in paths
    }
    spread = max(seconds.values()) / min(seconds.values())
    table.caption = f"keras-wm verify, slowest file / fastest file: {spread:.2f}"
    return table


def measure(program: str, arguments: list[object]) -> Run:
    """Runs a program as a separate process, and measures it."""
    begin = time.perf_counter()
    finished = subprocess.run(  # noqa: S603 (our own code)
        [sys.executable, "-c", METER.format(program=program), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    seconds = time.perf_counter() - begin
    peak, read = json.loads(finished.stderr.splitlines()[-1])
    return Run(seconds, peak, read)


def over_http(paths: list[Path], key: Path) -> Table:
    """Returns a table of the bytes sent when a file is verified at a URL."""
    from tests.files.servers import serving

    table = Table("file over HTTP", "size, MB", "sent, MB", "requests", "seconds")
    with serving(paths[0].parent) as server:
        for path in paths:
            server.sent = server.requests = 0
            url = f"{server.url}/{path.name}"
            run = measure(VERIFY, ["verify", url, "--key", key, "--layer", LAYER])
            table.add_row(
                path.name,
                f"{path.stat().st_size / 1e6:.0f}",
                f"{server.sent / 1e6:.2f}",
                f"{server.requests}",
                f"{run.seconds:.2f}",
            )
    return table


def _median(runs: list[Run]) -> str:
    seconds, peak, read = (
        median(getattr(run, name) for run in runs)
        for name in ("seconds", "peak_megabytes", "read_megabytes")
    )
    return f"{seconds:.2f} s, {peak:.0f} MB, {read:.0f} MB read"


if __name__ == "__main__":
    main()
