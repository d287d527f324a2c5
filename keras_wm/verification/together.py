"""One verdict from several kernels that carry the same message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from keras_wm.files import Kernel, Limits, select
from keras_wm.scheme.detection import Detection, detect, detect_jointly
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.search import check_work, fits


@dataclass(frozen=True)
class Together:
    """What was found of a key in several kernels together.

    Attributes:
        kernels: The kernels.
        detection: The scores in all of them.
        parts: The scores in each of them, in the same order.
        tried: How many ways there were to read them. The p-value of the best of them
            has to be multiplied by it.
    """

    kernels: Sequence[Kernel]
    detection: Detection
    parts: Sequence[Detection]
    tried: int


def search_together(
    kernels: Sequence[Kernel],
    layers: Sequence[str],
    key: WatermarkKey,
    source: str,
    limits: Limits,
) -> Together:
    """Looks for a key in the kernels of several layers, as one place.

    Args:
        kernels: Where to look.
        layers: The names of the layers, as for `select`.
        key: What to look for.
        source: What the kernels come from, for error messages.
        limits: What the search may take.

    Raises:
        LayerNotFoundError: If there is no layer of one of the names.
        ValueError: If no layer is named, or a layer cannot hold the message.
    """
    if not layers:
        raise ValueError("Expected the names of layers. Received: layer=[]")
    places: dict[str, list[Kernel]] = {}
    for layer in layers:
        chosen = select(kernels, layer, source)
        fitting = [kernel for kernel in chosen if fits(kernel, key)]
        if not fitting:
            key.check_shape(chosen[0].shape)
        for kernel in fitting:
            readings = places.setdefault(kernel.path, [])
            if kernel not in readings:
                readings.append(kernel)
    # A file that does not tell the order of axes has all kernels in the same one.
    count = max(map(len, places.values()))
    ways = [
        [readings[min(way, len(readings) - 1)] for readings in places.values()]
        for way in range(count)
    ]
    check_work([kernel for way in ways for kernel in way], [key], limits)
    found = [_read(way, key, count) for way in ways]
    return min(found, key=lambda one: one.detection.log10_p)


def _read(kernels: Sequence[Kernel], key: WatermarkKey, tried: int) -> Together:
    parts: list[Detection] = []

    def arrays() -> Iterator[NDArray[Any]]:
        # One at a time: together they may not fit into memory.
        for kernel in kernels:
            values = kernel.read()
            parts.append(detect(values, key))
            yield values

    return Together(kernels, detect_jointly(arrays(), key), parts, tried)
