"""Counts the modules of keras_wm that one warm call of `verify` passes through.

    python benchmarks/modules_of_verify.py [--list]

Saves a small model with three kernels as a `.keras` file, verifies it once so that all
modules are imported, and traces a second call. Fewer modules are easier to follow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any


def traced_modules(file: Path, key: Any) -> Counter[str]:
    """Returns the number of function calls in each module while a file is verified."""
    import keras_wm

    calls: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.partition(".")[0] == "keras_wm":
            calls[module] += 1

    keras_wm.verify(file, key)
    sys.setprofile(profile)
    try:
        keras_wm.verify(file, key)
    finally:
        sys.setprofile(None)
    return calls


def main() -> None:
    """Prints the number of modules and of calls."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true")
    listed = parser.parse_args().list
    import keras

    import keras_wm

    key = keras_wm.WatermarkKey.generate("Example Ltd", bits=32)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, name="first"),
            keras.layers.Conv2D(32, 3, name="second"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="logits"),
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.keras")
        model.save(file)
        calls = traced_modules(file, key)
    if listed:
        for module, count in sorted(calls.items()):
            print(f"{count:6}  {module}")
    print(f"{len(calls)} modules, {sum(calls.values())} calls")


if __name__ == "__main__":
    main()
