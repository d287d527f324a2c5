"""Looking for keys in kernels, each of which is read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from keras_wm.errors import UnsafeFileError
from keras_wm.files import DEFAULT_LIMITS, Kernel, Limits
from keras_wm.scheme.detection import Detection, detect
from keras_wm.scheme.key import WatermarkKey


@dataclass(frozen=True)
class Finding:
    """What was found of one key in some kernels.

    Attributes:
        kernel: The kernel that carries the key's message best, or `None` where no
            kernel can hold it.
        detection: The scores in that kernel, or `None`.
        tried: How many kernels were tried. The p-value of the best of them has to be
            multiplied by it.
        skipped: How many kernels cannot hold the message.
        log10_arrangements: log10 of how many arrangements of the kernel's filters it
            is the best of. The p-value has to be multiplied by them, too.
    """

    kernel: Kernel | None
    detection: Detection | None
    tried: int
    skipped: int
    log10_arrangements: float = 0.0

    @property
    def log10_p(self) -> float:
        """log10 of the p-value of this one try."""
        if self.detection is None:
            return 0.0
        return min(0.0, self.detection.log10_p + self.log10_arrangements)


def best_of(findings: Sequence[Finding]) -> Finding:
    """What is most surprising of several findings of one key, as one of all tries."""
    best = min(findings, key=lambda found: (found.log10_p, found.detection is None))
    return replace(
        best,
        tried=sum(found.tried for found in findings),
        skipped=findings[0].skipped,
    )


def search(
    kernels: Sequence[Kernel],
    keys: Sequence[WatermarkKey],
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Looks for each key in each kernel that can hold its message.

    Args:
        kernels: Where to look.
        keys: What to look for.
        limits: What the search may take.
        progress: Called with how many pairs of a kernel and a key are done, and how
            many there are.

    Returns:
        A `Finding` for each key.

    Raises:
        ModelFileError: If a kernel cannot be read.
        UnsafeFileError: If the search would take too long.
    """
    check_work(kernels, keys, limits)
    best: list[tuple[Kernel, Detection] | None] = [None] * len(keys)
    tried = [0] * len(keys)
    fitting = [
        [index for index, key in enumerate(keys) if fits(one, key)] for one in kernels
    ]
    done, total = 0, sum(map(len, fitting))
    for kernel, indices in zip(kernels, fitting, strict=True):
        if not indices:
            continue
        values = kernel.read()
        for index in indices:
            if progress is not None:
                progress(done, total)
            done += 1
            tried[index] += 1
            detection, so_far = detect(values, keys[index]), best[index]
            if so_far is None or detection.log10_p < so_far[1].log10_p:
                best[index] = kernel, detection
    return [
        Finding(
            kernel=found[0] if found else None,
            detection=found[1] if found else None,
            tried=count,
            skipped=len(kernels) - count,
        )
        for found, count in zip(best, tried, strict=True)
    ]


def check_work(
    kernels: Sequence[Kernel], keys: Sequence[WatermarkKey], limits: Limits
) -> None:
    """Refuses a file whose kernels would keep a search busy for hours.

    A deflated array may stand for a thousand times as many weights.

    Raises:
        UnsafeFileError: If it would.
    """
    for key in keys:
        sizes = (prod(one.shape[:-1]) for one in kernels if fits(one, key))
        work = key.bits * sum(sizes)
        if work > limits.search_entries:
            raise UnsafeFileError(
                f"searching all kernels for {key.bits} bits takes {work:,} entries of "
                f"the projection, more than Limits.search_entries="
                f"{limits.search_entries:,}. Name a layer, or raise the limit."
            )


def fits(kernel: Kernel, key: WatermarkKey) -> bool:
    """Whether a kernel can hold a key's message."""
    try:
        key.check_shape(kernel.shape)
    except ValueError:
        return False
    return True
