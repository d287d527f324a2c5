"""The result of a search for one key, and the choice among several results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keras_wm.files import Kernel
from keras_wm.scheme.detection import Detection, corrected, format_p
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.standing import (
    Standing,
    free_choices,
    is_evidence,
    rank,
)


@dataclass(frozen=True)
class SearchResult:
    """The result of searching kernels for one key.

    Attributes:
        kernels: The kernel with the smallest p-value, or all kernels of a joint
            search. Empty if no kernel can hold the message.
        detection: The scores in that kernel, or in those kernels together. `None` if
            no kernel can hold the message.
        tried: Number of tests that were made.
        counted: Factor of the p-value: the number of tests that were made or could
            have been made in their place.
        skipped: Number of kernels that cannot hold the message.
        log10_arrangements: log10 of the number of arrangements of the kernel's
            filters that were compared. The p-value must be multiplied by it, too.
        parts: The scores in each kernel of a joint search, by the kernel's name.
        slot: Number of the slot in which the kernel was read.
        undone: Changes of the kernel that an aligned search has undone: numbers of
            channels (`"moved"`, `"flipped"`) and of neurons (`"added"`; negative if
            neurons are missing).
        name: Name of this attempt if there are several: `"unaligned"`, `"aligned"`,
            `"reordered"`, `"jointly"`, `"one by one"`, `"all kernels"` or `"together"`.
        unused: The result in kernels that the model does not use. It is never the
            result of the search, but its tests are counted.
        choices: Names of the free choices that the test rests on, see `standing`.
        standing: The standing of the result.
        log10_product: log10 of the p-value of the product of several tests' p-values,
            see `together`; `None` for other tests.
    """

    kernels: tuple[Kernel, ...] = ()
    detection: Detection | None = None
    tried: int = 0
    counted: int = 0
    skipped: int = 0
    log10_arrangements: float = 0.0
    parts: Mapping[str, Detection] = field(default_factory=dict)
    slot: int = 0
    undone: Mapping[str, int] = field(default_factory=dict)
    name: str = ""
    unused: SearchResult | None = None
    choices: frozenset[str] = frozenset()
    standing: Standing = Standing.INDEPENDENT
    log10_product: float | None = None

    @property
    def layer(self) -> str | None:
        """The names of the kernels, or `None` if there is no kernel."""
        return ", ".join(kernel.name for kernel in self.kernels) or None

    @property
    def kernel_note(self) -> str:
        """Steps from the stored arrays to the kernels; often empty."""
        notes = dict.fromkeys(kernel.note for kernel in self.kernels if kernel.note)
        return "; ".join(notes)

    @property
    def unused_note(self) -> str:
        """Reasons why the model does not use the kernels; empty if it does."""
        reasons = dict.fromkeys(kernel.unused for kernel in self.kernels)
        return "; ".join(filter(None, reasons))

    @property
    def log10_p(self) -> float:
        """log10 of the p-value of one test, corrected for arrangements only."""
        return min(0.0, self._log10_p)

    @property
    def log10_p_corrected(self) -> float:
        """log10 of the p-value, corrected for all tests that are counted."""
        return corrected(self._log10_p, self.counted)

    @property
    def _log10_p(self) -> float:
        if self.log10_product is not None:
            return self.log10_product
        if self.detection is None:
            return 0.0
        return self.detection.log10_p + self.log10_arrangements

    def __str__(self) -> str:
        """The p-value, the bit errors, and what was undone, on one line."""
        detection, undone = self.detection, self.undone
        p_value = f"p {format_p(self.log10_p)} of this test"
        if detection is None:
            return f"{p_value}, no kernel that can hold the message"
        errors = detection.bits - detection.matches
        where = f"{len(self.parts)} kernels" if self.parts else self.layer
        text = f"{p_value}, {errors} of {detection.bits} bits wrong in {where}"
        if not undone:
            return text
        steps = f"{undone['moved']} channels moved, {undone['flipped']} signs flipped"
        if added := undone.get("added", 0):
            steps += f", {abs(added)} neurons {'added' if added > 0 else 'removed'}"
        return f"{text}; undone: {steps}, all scaling"

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures as plain Python values."""
        return {
            "layer": self.layer,
            "slot": self.slot,
            "kernels_tried": self.tried,
            "tests_counted": self.counted,
            "log10_arrangements": self.log10_arrangements,
            **(self.detection.to_dict() if self.detection else {}),
            **self.undone,
        }


def best_of(results: Sequence[SearchResult]) -> SearchResult:
    """Returns the most significant of several results of one key.

    The tests of all results are counted in it. A result in kernels that the model does
    not use is never the best one, but is set apart in its `unused`.
    """
    used = [result for result in results if not result.unused_note]
    best = min(used, key=_significance, default=SearchResult())
    unused = [result for result in results if result.unused_note]
    unused += [result.unused for result in results if result.unused is not None]
    return replace(
        best,
        tried=sum(result.tried for result in results),
        counted=sum(result.counted for result in results),
        skipped=results[0].skipped,
        unused=min(unused, key=_significance, default=None),
    )


def _significance(result: SearchResult) -> tuple[float, bool]:
    return result.log10_p, result.detection is None


def judge(
    attempts: Sequence[SearchResult],
    key: WatermarkKey,
    fixed: frozenset[str] | None,
    recipients: int = 1,
) -> list[SearchResult]:
    """Returns attempts with their standing, and counts that the best one is chosen.

    A finding is the best of all attempts that could have had its standing: of those
    that rest on no free choice, of those whose choices a claim fixes, or of all.

    Args:
        attempts: The results of all attempts.
        key: The key.
        fixed: Names of the choices that a claim fixes, or `None` without a claim that
            counts.
        recipients: Number of recipients in whose place the key's recipient could have
            been chosen; 1 for the owner's key.
    """
    free = free_choices(key)
    attempts = [
        replace(attempt, choices=attempt.choices | free) for attempt in attempts
    ]
    independent = sum(not attempt.choices for attempt in attempts)
    covered = [fixed is not None and attempt.choices <= fixed for attempt in attempts]
    claimed = sum(covered) * recipients
    judged = []
    for attempt, is_covered in zip(attempts, covered, strict=True):
        result = _as(Standing.PRIVATE, attempt, len(attempts))
        if is_covered:
            result = _as(Standing.CLAIMED, attempt, claimed)
        if not attempt.choices:
            alone = _as(Standing.INDEPENDENT, attempt, independent)
            # A claim dates the key, too. A weak finding needs that date.
            if not is_covered or is_evidence(alone.standing, alone.log10_p_corrected):
                result = alone
        judged.append(result)
    return judged


def _as(standing: Standing, result: SearchResult, factor: int) -> SearchResult:
    """Returns a result with a standing, whose counted tests are multiplied."""
    counted, unused = result.counted * factor, result.unused
    if unused is not None:
        unused = replace(unused, counted=counted)
    return replace(result, standing=standing, counted=counted, unused=unused)


def strongest(attempts: Sequence[SearchResult], alpha: float) -> SearchResult:
    """Returns the attempt to report: findings first, then by standing and p-value."""
    return min(
        attempts,
        key=lambda result: rank(result.standing, result.log10_p_corrected, alpha),
    )
