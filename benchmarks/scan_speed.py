"""Measures the speed of a scan of many small files, and its memory.

    python benchmarks/scan_speed.py [--files 10000] [--keys 3] [--workers 2] [--dask]

Saves small Keras models of several shapes in each format; the widest is marked. Links
them under many names and scans those. The rate is measured from the hundredth result,
when all processes have started. The memory is that of the scan and its processes after
a tenth of the files and at the end. `--dask` repeats the scan on a
Dask LocalCluster and compares the reports.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

import keras_wm

BITS = 64
SUFFIXES = (".keras", ".h5", ".weights.h5")
STARTED = 100


def main() -> None:
    """Scans the files and prints rate and memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dask", action="store_true")
    options = parser.parse_args()
    keys = [
        keras_wm.WatermarkKey.generate(f"owner {index}", BITS)
        for index in range(options.keys)
    ]
    console = Console(width=110, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        originals = save_models(Path(folder), keys[0])
        names = Path(folder, "many")
        names.mkdir()
        for index in range(options.files):
            original = originals[index % len(originals)]
            (names / f"{index:06}{''.join(original.suffixes)}").hardlink_to(original)
        sizes = [path.stat().st_size for path in originals]
        meter = Meter(options.files)
        report = keras_wm.scan(
            names, keys, workers=options.workers, on_result=meter.on_result
        )
        rate = (options.files - STARTED) / (time.perf_counter() - meter.begin)
        console.print(
            f"{options.files:,} files of {min(sizes) // 1000} to "
            f"{max(sizes) // 1000} kB, {options.keys} keys, {options.workers} workers: "
            f"{rate:.0f} files per second, {rate / options.workers:.0f} per second "
            "and worker"
        )
        console.print(
            f"Memory of all processes: {meter.early:.0f} MB after a tenth of the "
            f"files, {meter.late:.0f} MB at the end"
        )
        console.print(f"{len(report.found):,} marks found. {report.correction}")
        if options.dask:
            same = scan_on_cluster(names, keys, options.workers) == report.to_dict()
            console.print(f"Same report from a Dask cluster: {same}")


class Meter:
    """Records the start time of a scan's measurement, and the memory of the scan."""

    def __init__(self, files: int) -> None:
        self._files = files
        self._done = 0
        self.begin = 0.0
        self.early = self.late = 0.0

    def on_result(self, _: Any) -> None:
        """Counts a result; the scan calls this for each one."""
        self._done += 1
        if self._done == STARTED:
            self.begin = time.perf_counter()
        if self._done == max(STARTED, self._files // 10):
            self.early = memory()
        if self._done == self._files:
            self.late = memory()


def memory() -> float:
    """Returns the resident memory of this process and its children, in MB."""
    this = psutil.Process()
    processes = [this, *this.children(recursive=True)]
    return sum(process.memory_info().rss for process in processes) / 1e6


def scan_on_cluster(folder: Path, keys: Any, workers: int) -> dict[str, Any]:
    """Returns the report of a scan on a local Dask cluster."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        return keras_wm.scan(folder, keys, client=client).to_dict()


def save_models(folder: Path, key: Any) -> list[Path]:
    """Saves small convolutional networks in each format; the widest is marked."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(1)
    paths = []
    for index, width in enumerate((8, 12, 16, 24)):
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((16, 16, 1)),
                layers.Conv2D(width, 3, activation="relu"),
                layers.Conv2D(2 * width, 3, activation="relu", name="middle"),
                layers.Conv2D(4 * width, 3, activation="relu"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(10),
            ]
        )
        if width == 24:
            keras_wm.attach(model, "middle", key, strength=1e-2)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
        rng = np.random.default_rng(index)
        x, y = rng.normal(size=(64, 16, 16, 1)), rng.integers(0, 10, 64)
        model.fit(x, y, batch_size=16, epochs=30 if width == 24 else 1, verbose=0)
        for suffix in SUFFIXES:
            path = folder / f"{width}{suffix}"
            paths.append(keras_wm.publish(model, path))
    return paths


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
