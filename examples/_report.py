"""The key and the final summary that all examples share."""

from __future__ import annotations

import json
from typing import Any

import keras_wm
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import SecretSource

# A fixed key, so that every run gives the same figures. Yours is secret and comes from
# keras_wm.WatermarkKey.generate("Example Ltd").
KEY = keras_wm.WatermarkKey(
    SecretSource(Secret(bytes(range(32))), "Example Ltd", 64, "random", "keyed")
)


def report(
    kind: str,
    verification: keras_wm.Verification,
    twin: Any,
    **results: tuple[float, float],
) -> None:
    """Prints the summary of an example as a line of JSON.

    Args:
        kind: Name of the kind of network.
        verification: The report of `keras_wm.verify` on the published file.
        twin: The same network, trained without the mark.
        **results: A figure of merit, such as `accuracy=(0.98, 0.97)`: the value of the
            marked network, and that of the twin.
    """
    ((metric, (marked, unmarked)),) = results.items()
    control = keras_wm.verify(keras_wm.publish(twin, f"{kind} twin.keras"), KEY)
    summary = {
        "kind": kind,
        "verdict": verification.verdict,
        "ber": verification.ber,
        "log10_p": verification.log10_p,
        "metric": metric,
        "marked": float(marked),
        "unmarked": float(unmarked),
        "twin_verdict": control.verdict,
    }
    print(json.dumps(summary))
