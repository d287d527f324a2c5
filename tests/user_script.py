"""A user's script, for the test that type checkers understand the package."""

import io
from pathlib import Path

import keras_wm
from keras_wm import BitErrorRate, Verification, WatermarkKey, WatermarkRegularizer
from keras_wm.files import Limits, open_model_file

key = WatermarkKey.generate("Example Ltd")
regularizer = WatermarkRegularizer(key, strength=1e-3)
callback = BitErrorRate()


def verdict(file: Path) -> str:
    result: Verification = keras_wm.verify(file, key, limits=Limits(array_bytes=10**9))
    return result.verdict if result.marked else "not found"


def sizes(content: bytes) -> list[tuple[int, ...]]:
    with open_model_file(io.BytesIO(content)) as model_file:
        return [kernel.shape for kernel in model_file.kernels]


def matches(folder: str) -> list[str]:
    report: keras_wm.ScanReport = keras_wm.scan([folder], [key])
    return [match.file for match in report.found]


# A checker that does not see the types would not need this comment, and says so.
keras_wm.verify(1.5, key)  # type: ignore[arg-type]

try:
    print(verdict(Path("model.keras")), keras_wm.__version__)
except keras_wm.ModelFileError as error:
    print(error, keras_wm.research.attacks.__doc__, keras_wm.slmc.__doc__)
