"""Ownership watermarks for Keras models.

Embed a mark while a model trains, watch it, publish the model, and prove the mark
in the file:

```python
Conv2D(128, 3, kernel_regularizer=keras_wm.WatermarkRegularizer(key))   # embed
model.fit(..., callbacks=[keras_wm.BitErrorRate(), TensorBoard("logs")])  # watch
keras_wm.verify("downloaded.keras", key)                                  # prove
```

Every name is imported when it is first used: `keras_wm.verify` does not import Keras.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from keras_wm._version import __version__
from keras_wm.utils.lazy import attach as _attach_lazily

__all__ = [
    "AlignmentError",
    "Anchor",
    "AttachAfter",
    "BitErrorRate",
    "Claim",
    "ClaimError",
    "Comparison",
    "Detection",
    "Distiller",
    "FileResult",
    "Identification",
    "Inspection",
    "KernelReport",
    "KeyFileError",
    "LayerNotFoundError",
    "Limits",
    "ModelFileError",
    "Party",
    "Sandbox",
    "ScanReport",
    "UnsafeFileError",
    "UnsupportedFileError",
    "Verification",
    "WatermarkKey",
    "WatermarkRegularizer",
    "WrongPassphraseError",
    "__version__",
    "attach",
    "claims",
    "compare",
    "detach",
    "detect",
    "files",
    "identify",
    "inspect",
    "keys",
    "measure",
    "measure_anchor",
    "penalty",
    "plots",
    "publish",
    "research",
    "scan",
    "slmc",
    "verify",
]

if TYPE_CHECKING:
    from keras_wm import claims, files, plots, research, slmc
    from keras_wm.claims.claim import Claim
    from keras_wm.embedding.anchoring.measuring import measure_anchor
    from keras_wm.embedding.attach_after import AttachAfter
    from keras_wm.embedding.attachment import attach, detach
    from keras_wm.embedding.callback import BitErrorRate
    from keras_wm.embedding.distiller import Distiller
    from keras_wm.embedding.key_scope import keys
    from keras_wm.embedding.measuring import measure
    from keras_wm.embedding.penalties import penalty
    from keras_wm.embedding.publishing import publish
    from keras_wm.embedding.regularizer import WatermarkRegularizer
    from keras_wm.errors import (
        AlignmentError,
        ClaimError,
        KeyFileError,
        LayerNotFoundError,
        ModelFileError,
        UnsafeFileError,
        UnsupportedFileError,
        WrongPassphraseError,
    )
    from keras_wm.files import Limits, Sandbox
    from keras_wm.scanning import FileResult, ScanReport, scan
    from keras_wm.scheme.anchor import Anchor
    from keras_wm.scheme.detection import Detection, detect
    from keras_wm.scheme.key import WatermarkKey
    from keras_wm.verification.comparison import Comparison, Party, compare
    from keras_wm.verification.identification import Identification, identify
    from keras_wm.verification.inspection import Inspection, KernelReport, inspect
    from keras_wm.verification.result import Verification
    from keras_wm.verification.verification import verify


def _register() -> None:
    """Lets Keras load models that hold `WatermarkRegularizer`, if Keras is in use."""
    if "keras" in sys.modules:
        importlib.import_module("keras_wm.embedding")


__getattr__, __dir__ = _attach_lazily(
    __name__,
    {
        "claims.claim": ["Claim"],
        "embedding.anchoring.measuring": ["measure_anchor"],
        "embedding.attach_after": ["AttachAfter"],
        "embedding.attachment": ["attach", "detach"],
        "embedding.callback": ["BitErrorRate"],
        "embedding.distiller": ["Distiller"],
        "embedding.key_scope": ["keys"],
        "embedding.measuring": ["measure"],
        "embedding.penalties": ["penalty"],
        "embedding.publishing": ["publish"],
        "embedding.regularizer": ["WatermarkRegularizer"],
        "errors": [
            "AlignmentError",
            "ClaimError",
            "KeyFileError",
            "LayerNotFoundError",
            "ModelFileError",
            "UnsafeFileError",
            "UnsupportedFileError",
            "WrongPassphraseError",
        ],
        "files": ["Limits", "Sandbox"],
        "scanning": ["FileResult", "ScanReport", "scan"],
        "scheme.anchor": ["Anchor"],
        "scheme.detection": ["Detection", "detect"],
        "scheme.key": ["WatermarkKey"],
        "verification.comparison": ["Comparison", "Party", "compare"],
        "verification.identification": ["Identification", "identify"],
        "verification.inspection": ["Inspection", "KernelReport", "inspect"],
        "verification.result": ["Verification"],
        "verification.verification": ["verify"],
    },
    subpackages=["claims", "files", "plots", "research", "slmc"],
    before=_register,
)

_register()
