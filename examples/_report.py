"""The key, the accuracy and the final summary that all examples share."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from keras import ops

import keras_wm
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import SecretSource

# A fixed key, so that every run gives the same figures. Yours is secret and comes from
# keras_wm.WatermarkKey.generate("Example Ltd").
KEY = keras_wm.WatermarkKey(
    SecretSource(Secret(bytes(range(32))), "Example Ltd", 64, "random", "keyed")
)


def accuracy(model: Any, x: Any, labels: Any) -> float:
    """Returns the share of labels that a model predicts.

    Unlike `evaluate`, it compiles nothing, which takes longer than 1,000 predictions.

    Args:
        model: A model with an output for each class, or with one probability.
        x: Inputs. The model gets all of them at once.
        labels: The true labels, in the order of the outputs.
    """
    outputs = ops.convert_to_numpy(model(x))
    predicted = outputs.argmax(-1) if outputs.shape[-1] > 1 else outputs[..., 0] > 0.5
    return float(np.mean(predicted == np.reshape(labels, predicted.shape)))


def report(
    verification: keras_wm.Verification, twin: tuple[Any, float], **result: float
) -> None:
    """Prints the summary of an example as a line of JSON.

    Args:
        verification: The report of `keras_wm.verify` on the published file.
        twin: The same network, trained without the mark, and its figure of merit.
        **result: The figure of merit of the marked network, such as `accuracy=0.98`.
    """
    network, unmarked = twin
    ((metric, marked),) = result.items()
    control = keras_wm.verify(keras_wm.publish(network, "twin.keras"), KEY)
    summary = {
        "verdict": verification.verdict,
        "ber": verification.ber,
        "log10_p": verification.log10_p,
        "metric": metric,
        "marked": float(marked),
        "unmarked": float(unmarked),
        "twin_verdict": control.verdict,
    }
    print(json.dumps(summary))
