"""Reads randomly damaged model files, and reports all that are not read or refused.

    python -m tests.files.fuzz --seconds 600 --keep offenders

Child processes read the files. A child is ended and replaced if HDF5 crashes, takes too
long or uses too much memory. The reader may raise `ModelFileError` only. Files with any
other outcome are kept, and an unexpected exception makes the exit status 1.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from keras_wm.errors import ModelFileError
from keras_wm.files import open_model_file
from tests.files.mutations import mutate
from tests.files.written import (
    config_of,
    write_archive,
    write_legacy,
    write_quantized,
    write_safetensors,
    write_weights,
)

DATA = Path(__file__).parent / "data"
FOREIGN = "UNEXPECTED"
MEMORY = 500 * 2**20


def corpus(folder):
    """Yields the name of every good sample, and its bytes by the path within it.

    A file has a single entry with an empty path; a folder has one entry per file.

    Args:
        folder: Folder for temporary files.
    """
    for path in sorted(DATA.iterdir()):
        if path.suffix in (".keras", ".h5"):
            yield path.name, {"": path.read_bytes()}
    made = {
        "archive.keras": write_archive,
        "deflated.keras": lambda path: write_archive(path, method=8),
        "small.weights.h5": write_weights,
        "chunks.weights.h5": lambda path: write_weights(
            path, chunks=(2, 3), compression="gzip", shuffle=True, fletcher32=True
        ),
        "legacy.h5": write_legacy,
        "quantized.weights.h5": write_quantized,
        "arrays.safetensors": write_safetensors,
    }
    for name, write in made.items():
        yield name, {"": write(folder / name).read_bytes()}
    yield from folders((folder / "small.weights.h5").read_bytes(), folder)


def folders(weights, folder):
    """Yields good folders: an unzipped model, a sharded preset, and safetensors."""
    shards = ["model_00000.weights.h5", "model_00001.weights.h5"]
    index = {"metadata": {"total_size": 96}, "weight_map": {"/layers/dense": shards}}
    other = weights.replace(b"dense", b"danse")
    with_config = {"config.json": config_of(("Dense", "c1")), "metadata.json": b"{}"}
    yield "unzipped", {**with_config, "model.weights.h5": weights}
    yield (
        "preset",
        {
            **with_config,
            "model.weights.json": json.dumps(index).encode(),
            **dict(zip(shards, (weights, other), strict=True)),
        },
    )
    arrays = (folder / "arrays.safetensors").read_bytes()
    yield "hub", {**with_config, "model.safetensors": arrays}


def read(path):
    """Reads all kernels of a model file; returns the outcome as a short text."""
    try:
        with open_model_file(path) as model_file:
            for kernel in model_file.kernels:
                array = kernel.read()
                assert array.shape == kernel.shape
                assert array.dtype.kind == "f"
        return "read"
    except ModelFileError as error:
        cause = f" from {type(error.__cause__).__name__}" if error.__cause__ else ""
        return f"refused: {type(error).__name__}{cause}"
    except Exception as error:
        return f"{FOREIGN}: {type(error).__name__}: {error}"


@dataclass(frozen=True)
class Case:
    """A damaged file or folder."""

    name: str
    files: dict[str, bytes]

    def write(self, path):
        """Writes it, replacing an earlier case."""
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        for within, content in self.files.items():
            (path / within).parent.mkdir(parents=True, exist_ok=True)
            (path / within).write_bytes(content)


def make_case(samples, seed, number):
    """Returns a sample in which one file is damaged at random."""
    random = Random(f"{seed}/{number}")
    name, files = random.choice(samples)
    _, others = random.choice(samples)
    within = random.choice(sorted(files))
    other = others[random.choice(sorted(others))]
    return Case(name, {**files, within: mutate(random, files[within], other)})


def _answer(connection, good):
    """Reads every path that is sent to this child process, and sends the outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    read(good)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        connection.send(read(connection.recv()))


class Reader:
    """A child process that reads one file at a time, and is replaced if it dies.

    Args:
        good: Good file, which the child reads to load all modules.
        seconds: Longest time for a file, or `None` for no limit.
    """

    def __init__(self, good, seconds):
        self._good = good
        self._seconds = seconds
        self._start()

    def _start(self):
        # A fork of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_answer, args=(theirs, self._good), daemon=True
        )
        self._process.start()
        theirs.close()

    def read(self, path):
        """Reads a file; returns the outcome, even if the child did not survive."""
        try:
            self._connection.send(path)
            if self._connection.poll(self._seconds):
                return self._connection.recv()
            outcome = f"ended after {self._seconds} s"
        except (EOFError, OSError):
            self._process.join()
            outcome = f"crashed with exit status {self._process.exitcode}"
        self.close()
        self._start()
        return outcome

    def close(self):
        """Ends the child process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


@dataclass
class Fuzzing:
    """A run of the fuzzer.

    Attributes:
        samples: Good files.
        folder: Folder for temporary files.
        seed: Random seed of all cases.
        cases: Number of cases, or `None` for no limit.
        seconds: Longest time for the run.
        patience: Longest time for a file in seconds, or `None` for no limit.
        keep: Folder for files that were neither read nor refused.
        outcomes: Number of cases by outcome.
    """

    samples: list
    folder: Path
    seed: int = 0
    cases: int | None = None
    seconds: float = float("inf")
    patience: float | None = 10
    keep: Path | None = None
    outcomes: Counter = field(default_factory=Counter)

    def run(self, readers):
        """Reads cases in a number of child processes; returns the outcomes."""
        numbers = itertools.count() if self.cases is None else range(self.cases)
        self._numbers = iter(numbers)
        self._until = time.monotonic() + self.seconds
        self._lock = threading.Lock()
        with ThreadPoolExecutor(readers) as threads:
            folders = [self.folder / str(index) for index in range(readers)]
            list(threads.map(self._work, folders))
        return self.outcomes

    def _work(self, folder):
        folder.mkdir()
        good, path = folder / "good", folder / "case"
        Case(*self.samples[0]).write(good)
        reader = Reader(good, self.patience)
        try:
            while time.monotonic() < self._until:
                with self._lock:
                    number = next(self._numbers, None)
                if number is None:
                    break
                case = make_case(self.samples, self.seed, number)
                case.write(path)
                self._record(case, number, reader.read(path))
        finally:
            reader.close()

    def _record(self, case, number, outcome):
        with self._lock:
            self.outcomes[outcome] += 1
        if self.keep and not outcome.startswith(("read", "refused")):
            print(f"{number} {case.name}: {outcome}", flush=True)
            case.write(self.keep / f"{self.seed}-{number}-{case.name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, help="number of files; default: no limit")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("offenders"))
    parser.add_argument("--readers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.keep.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run = Fuzzing(
            list(corpus(folder)),
            folder,
            options.seed,
            options.cases,
            seconds=options.seconds,
            keep=options.keep,
        )
        outcomes = run.run(options.readers)
    print(f"{sum(outcomes.values()):,} files")
    for outcome, count in outcomes.most_common():
        print(f"{count:8,} {outcome}")
    return any(outcome.startswith(FOREIGN) for outcome in outcomes)


if __name__ == "__main__":
    raise SystemExit(main())
