"""Ownership watermarks for Keras models.

Embed a mark while a model trains, watch it, publish the model, and prove the mark
in the file:

```python
Conv2D(128, 3, kernel_regularizer=keras_wm.WatermarkRegularizer(key))   # embed
model.fit(..., callbacks=[keras_wm.BitErrorRate(), TensorBoard("logs")])  # watch
keras_wm.verify("downloaded.keras", key)                                  # prove
```

Names are imported when they are asked for: `keras_wm.verify` does not import Keras.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from keras_wm._version import __version__

_HOMES = {
    "AlignmentError": "errors",
    "BitErrorRate": "embedding.callback",
    "Claim": "verification.comparison",
    "Comparison": "verification.comparison",
    "Detection": "scheme.detection",
    "Distiller": "embedding.distiller",
    "FileResult": "scanning",
    "Identification": "verification.identification",
    "KernelReport": "verification.inspection",
    "KeyFileError": "errors",
    "LayerNotFoundError": "errors",
    "Limits": "files",
    "ModelFileError": "errors",
    "Sandbox": "files",
    "ScanReport": "scanning",
    "UnsafeFileError": "errors",
    "UnsupportedFileError": "errors",
    "Verification": "verification.verdict",
    "WatermarkKey": "scheme.key",
    "WatermarkRegularizer": "embedding.regularizer",
    "WrongPassphraseError": "errors",
    "attach": "embedding.attachment",
    "compare": "verification.comparison",
    "detach": "embedding.attachment",
    "detect": "scheme.detection",
    "identify": "verification.identification",
    "inspect": "verification.inspection",
    "keys": "embedding.key_scope",
    "publish": "embedding.publishing",
    "scan": "scanning",
    "verify": "verification.verification",
}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from keras_wm.embedding.attachment import attach, detach
    from keras_wm.embedding.callback import BitErrorRate
    from keras_wm.scheme.detection import Detection, detect
    from keras_wm.embedding.distiller import Distiller
    from keras_wm.errors import (
        AlignmentError,
        KeyFileError,
        LayerNotFoundError,
        ModelFileError,
        UnsafeFileError,
        UnsupportedFileError,
        WrongPassphraseError,
    )
    from keras_wm.files import Limits, Sandbox
    from keras_wm.verification.inspection import KernelReport, inspect
    from keras_wm.scheme.key import WatermarkKey
    from keras_wm.embedding.key_scope import keys
    from keras_wm.verification.comparison import Claim, Comparison, compare
    from keras_wm.embedding.publishing import publish
    from keras_wm.verification.identification import Identification, identify
    from keras_wm.embedding.regularizer import WatermarkRegularizer
    from keras_wm.scanning import FileResult, ScanReport, scan
    from keras_wm.verification.verdict import Verification
    from keras_wm.verification.verification import verify


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _register()
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def _register() -> None:
    """Lets Keras load models that hold our regularizer, where Keras is in use."""
    if "keras" in sys.modules:
        importlib.import_module(f"{__name__}.embedding.regularizer")


_register()
