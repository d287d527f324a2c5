"""Measures the time of BitErrorRate after an epoch, relative to the epoch.

    python benchmarks/callback_cost.py [--epochs 10]

Trains the demo's network on the demo's pictures. Epochs and calls of the callback
alternate, and each call is divided by the epoch before it.
"""

from __future__ import annotations

import argparse
import time

import keras
import numpy as np

from keras_wm import BitErrorRate, WatermarkKey, WatermarkRegularizer
from keras_wm.research.datasets import load_pictures
from keras_wm.research.demo import BATCH, DemoSettings
from keras_wm.research.hosts.wide_resnet import paper_optimizer, wide_resnet


def main() -> None:
    """Measures the ratio and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    digits = load_pictures("digits")
    mark = WatermarkRegularizer(WatermarkKey.generate("benchmark"))
    model = wide_resnet(
        digits.x_train.shape[1:],
        digits.classes,
        regularizers={DemoSettings.layer: mark},
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(paper_optimizer(1000), loss)
    callback = BitErrorRate()
    callback.set_model(model)
    ratios = []
    for epoch in range(arguments.epochs + 1):
        begin = time.perf_counter()
        model.fit(digits.x_train, digits.y_train, BATCH, verbose=0)
        trained = time.perf_counter()
        callback.on_epoch_end(epoch, {})
        ratios.append((time.perf_counter() - trained) / (trained - begin))
    low, middle, high = np.percentile(
        ratios[1:], [25, 50, 75]
    )  # The first epoch compiles.
    print(
        f"BitErrorRate / epoch of the demo: median {100 * middle:.2f} %, "
        f"quartiles {100 * low:.2f} % and {100 * high:.2f} %"
    )


if __name__ == "__main__":
    main()
