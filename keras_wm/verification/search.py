"""Searches of kernels for keys. Each kernel is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import comb, perm
from typing import Any

from numpy.typing import NDArray

from keras_wm.errors import UnsafeFileError
from keras_wm.files import Kernel, Limits, ModelFile, select
from keras_wm.scheme.detection import (
    detect,
    detect_jointly,
)
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arguments import is_integer
from keras_wm.verification.search_result import (
    SearchResult,
    best_of,
)

# A kernel, and the key in the slot in which it is read.
Mark = tuple[Kernel, WatermarkKey]


def kernels_to_search(
    suspect: ModelFile, layer: str | None, key: WatermarkKey
) -> list[Kernel]:
    """Returns the kernels of a layer, or all kernels.

    Args:
        suspect: The open model.
        layer: Name of the layer, or `None` for all kernels.
        key: A key of the size that is searched for.

    Raises:
        LayerNotFoundError: If there is no such layer.
        ValueError: If the named layer cannot hold the message.
    """
    kernels = select(suspect.kernels, layer, suspect.path)
    if layer is not None and not any(key.fits(kernel.shape) for kernel in kernels):
        key.for_shape(kernels[0].shape)
    return kernels


def usage_notes(suspect: ModelFile) -> list[str]:
    """Returns notes on weights that the model may not use, although they count."""
    if not suspect.has_config:
        return [
            "The file has no config, so it is not known whether a model computes with "
            "these weights."
        ]
    if suspect.custom_classes:
        names = ", ".join(map(repr, suspect.custom_classes))
        return [
            f"It is not known which weights these classes compute with, because they "
            f"are not Keras's own: {names}."
        ]
    return []


def search(
    kernels: Sequence[Kernel],
    keys: Sequence[WatermarkKey],
    limits: Limits,
    progress: Callable[[int, int], None] | None = None,
    among: Sequence[Kernel] | None = None,
) -> list[SearchResult]:
    """Tests each kernel for each key whose message it can hold.

    Args:
        kernels: Kernels to search.
        keys: Keys to look for.
        limits: Limits on the work of the search.
        progress: Called with the number of finished tests and of all tests.
        among: The kernels that `kernels` were chosen from. All of them are counted,
            because another choice could have been made. `None` if nothing was chosen.

    Returns:
        A `SearchResult` for each key.

    Raises:
        ModelFileError: If a kernel cannot be read.
        UnsafeFileError: If the search would take too long.
    """
    check_work(kernels, keys, limits)
    fitting = [
        [index for index, key in enumerate(keys) if key.fits(kernel.shape)]
        for kernel in kernels
    ]
    tests = Counter(index for indices in fitting for index in indices)
    best = [
        SearchResult(
            counted=tests[index] if among is None else count_fitting(among, key),
            skipped=len(kernels) - tests[index],
        )
        for index, key in enumerate(keys)
    ]
    done = 0
    for kernel, indices in zip(kernels, fitting, strict=True):
        if not indices:
            continue
        values = kernel.read()
        for index in indices:
            if progress is not None:
                progress(done, tests.total())
            done += 1
            detection, slot = detect(values, keys[index]), keys[index].slot
            result = SearchResult((kernel,), detection, tried=1, slot=slot)
            best[index] = best_of([best[index], result])
    return best


def count_fitting(kernels: Sequence[Kernel], key: WatermarkKey) -> int:
    """Returns the number of kernels that can hold a key's message."""
    return sum(key.fits(kernel.shape) for kernel in kernels)


def search_slots(
    kernels: Sequence[Kernel],
    keys: Sequence[WatermarkKey],
    slots: int,
    limits: Limits,
    progress: Callable[[int, int], None] | None = None,
    among: Sequence[Kernel] | None = None,
) -> list[SearchResult]:
    """Tests each kernel for each key in each slot, see `search`.

    Returns:
        A `SearchResult` for each key: the most significant one of all slots, in which
        the tests in all slots are counted.
    """
    in_slots = [member for key in keys for member in keys_in_slots(key, slots)]
    results = search(kernels, in_slots, limits, progress, among)
    return [
        best_of(results[first : first + slots])
        for first in range(0, len(results), slots)
    ]


def keys_in_slots(key: WatermarkKey, slots: int) -> list[WatermarkKey]:
    """Returns a key in each of several slots, or as it is if there is one slot."""
    return [key] if slots == 1 else [key.in_slot(slot) for slot in range(slots)]


def checked_slots(slots: int | None, keys: Sequence[WatermarkKey] = ()) -> int:
    """Returns the number of slots to search.

    Args:
        slots: The number, or `None` for all slots up to the last one for which a key
            has an anchor, and at least 1.
        keys: The keys.

    Raises:
        ValueError: If `slots` is neither `None` nor a positive integer.
    """
    if slots is None:
        whole = [key for key in keys if not (key.opened or key.slot)]
        return max((key.anchors.end for key in whole), default=0) or 1
    if not is_integer(slots, 1):
        raise ValueError(f"Expected a number of slots. Received: slots={slots!r}")
    return slots


def search_jointly(
    suspect: ModelFile,
    keys: Sequence[WatermarkKey],
    layers: Sequence[str],
    limits: Limits,
) -> list[SearchResult]:
    """Tests the kernels of several layers, which carry the same mark, as one.

    Args:
        suspect: The open model.
        keys: The key in the slot of each layer, or in its only slot.
        layers: Names of the layers.
        limits: Limits on the work of the search.

    Returns:
        Two results: of the joint test, and of each kernel by itself. All sets of
        kernels that could have been named are counted in the first one.

    Raises:
        LayerNotFoundError: If there is no layer with one of the names.
        ModelFileError: If a kernel cannot be read.
        UnsafeFileError: If the search would take too long.
        ValueError: If no layer is named, if a layer cannot hold the message, or if a
            kernel is named for two slots.
    """
    if not layers:
        raise ValueError("Expected the names of layers. Received: layer=[]")
    in_order = keys if len(keys) > 1 else [*keys] * len(layers)
    # A file without known axis order has several kernels per array, one per order.
    orders: dict[str, list[Mark]] = {}
    for layer, key in zip(layers, in_order, strict=True):
        for kernel in kernels_to_search(suspect, layer, key):
            if key.fits(kernel.shape):
                marks = orders.setdefault(kernel.path, [])
                if any(known.slot != key.slot for _, known in marks):
                    raise ValueError(
                        f"Expected each layer once. Received {kernel.name!r} for two "
                        f"slots: layer={list(layers)}"
                    )
                if (kernel, key) not in marks:
                    marks.append((kernel, key))
    jointly, alone = search_sets(list(orders.values()), limits)
    # With an anchor, a slot fits fewer kernels than another. Those of all are counted.
    fitting = [
        kernel
        for kernel in suspect.kernels
        if any(key.fits(kernel.shape) for key in keys)
    ]
    arrays = len({kernel.path for kernel in fitting})
    sets = _count_sets(arrays, len(orders), is_ordered=len(keys) > 1)
    return [
        replace(jointly, name="jointly", counted=sets * jointly.tried),
        replace(alone, name="one by one", counted=len(fitting) * len(keys)),
    ]


def search_sets(
    arrays: Sequence[Sequence[Mark]], limits: Limits
) -> tuple[SearchResult, SearchResult]:
    """Tests a set of kernels as one.

    Args:
        arrays: The kernels of each array, one for each order of its axes, with the key
            in the slot in which they are read.
        limits: Limits on the work of the search.

    Returns:
        The result of the joint test, and the best result of a kernel by itself.
    """
    # All arrays of a file have the same order, so the orders are not combined.
    candidates = [
        [marks[min(order, len(marks) - 1)] for marks in arrays]
        for order in range(max(map(len, arrays)))
    ]
    check_work(
        [kernel for marks in candidates for kernel, _ in marks],
        [arrays[0][0][1]],
        limits,
    )
    jointly, alone = zip(*map(_jointly, candidates), strict=True)
    return best_of(jointly), best_of(alone)


def _count_sets(count: int, chosen: int, is_ordered: bool) -> int:
    """Returns how many choices of kernels a joint test counts.

    Any number of kernels could have been chosen, so the sets of each size are
    multiplied by the number of sizes. With slots their order is a choice, too.
    """
    if is_ordered:
        return count * perm(count, chosen)
    return count * comb(count, chosen) if chosen < count else 1


def _jointly(marks: Sequence[Mark]) -> tuple[SearchResult, SearchResult]:
    """Returns the result of the joint test, and the best one of a kernel by itself."""
    alone: list[SearchResult] = []

    def arrays() -> Iterator[tuple[NDArray[Any], WatermarkKey]]:
        # One at a time: together they may not fit into memory.
        for kernel, key in marks:
            values = kernel.read()
            detection = detect(values, key)
            alone.append(SearchResult((kernel,), detection, tried=1, slot=key.slot))
            yield values, key

    detection = detect_jointly(arrays())
    parts = {
        result.kernels[0].name: result.detection
        for result in alone
        if result.detection is not None
    }
    kernels = tuple(kernel for kernel, _ in marks)
    jointly = SearchResult(kernels, detection, tried=1, counted=1, parts=parts)
    return jointly, best_of(alone)


def check_work(
    kernels: Sequence[Kernel], keys: Sequence[WatermarkKey], limits: Limits
) -> None:
    """Raises UnsafeFileError if a search of the kernels would take too long.

    A compressed array can expand to a thousand times as many weights, so a small file
    could keep a search busy for hours.
    """
    for key in keys:
        shapes = [kernel.shape for kernel in kernels if key.fits(kernel.shape)]
        work = key.bits * sum(key.for_shape(shape).row_length for shape in shapes)
        if work > limits.search_entries:
            raise UnsafeFileError(
                f"searching all kernels for {key.bits} bits takes {work:,} entries of "
                f"the projection, more than Limits.search_entries="
                f"{limits.search_entries:,}. Name a layer, or raise the limit."
            )
