"""The owner's side: embedding a mark, watching it grow and publishing the model.

Importing this package registers `WatermarkRegularizer` with Keras, which can then load
models that contain it.
"""

from __future__ import annotations

from keras_wm.embedding.regularizer import WatermarkRegularizer

__all__ = ["WatermarkRegularizer"]
