"""The requirements report of a marked network as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

from keras_wm.research.evaluation.outcomes import MARKED_HOST, Outcome
from keras_wm.verification.result import Verification

# MPAI-NNW was adopted as IEEE 3304-2023.
METHOD = "follows the method of IEEE 3304-2023; not certified as conforming"
# Attributes of an evaluation, and of an attack's summary, that a report holds.
_SETTINGS = ("layer", "data", "seeds", "tolerance")
_REQUIREMENTS = ("fidelity", "capacity", "security", "efficiency")
_VERDICT = ("family", "attack", "largest_log10_p", "removed", "refused")


@dataclass(frozen=True)
class Fidelity:
    """The effect of the mark on the host network's test error.

    Attributes:
        test_error: Test error of the marked network, a share; `None` without data.
        baseline_error: Test error of the unmarked twin; `None` without a twin.
        difference: Error of the marked network minus that of the twin, over the same
            test examples.
        half_interval: Half of the 95 % confidence interval of the difference.
    """

    test_error: float | None = None
    baseline_error: float | None = None
    difference: float | None = None
    half_interval: float | None = None


@dataclass(frozen=True)
class Capacity:
    """The capacity of the marked kernel.

    Attributes:
        bits: Length T of the message.
        size: Number M of weights of a filter.
        count: Number L of filters.
        readable_bits: Number of bits that the kernel can hold.
        unseen_bits: Number of bits that the kernel can hold at a margin of 4 before
            the mark can be detected without the key.
        margin: Mean score z of the bits, in standard deviations.
        share: Share of the kernel's norm that the mark takes.
    """

    bits: int
    size: int
    count: int
    readable_bits: int
    unseen_bits: int
    margin: float
    share: float


@dataclass(frozen=True)
class Security:
    """Attempts to forge or detect the mark without its key.

    Attributes:
        wrong_keys: Number of random keys that were tested.
        wrong_keys_found: Number of those whose mark was found by mistake.
        smallest_log10_p: log10 of the smallest p-value among them, of one test.
        seconds_per_key: Time to test one key.
        statistics: Statistics of the marked kernel by name, each with that of the
            same kernel in the unmarked twin, or `None` without a twin.
    """

    wrong_keys: int
    wrong_keys_found: int
    smallest_log10_p: float
    seconds_per_key: float
    statistics: dict[str, tuple[float, float | None]]


@dataclass(frozen=True)
class Efficiency:
    """The cost of the mark in time and memory.

    Attributes:
        step_ratio: Time of a training step with the mark over the time without it;
            `None` without data.
        detection_seconds: Time to find the mark in the file; `None` for a model in
            memory.
        file_bytes: Size of the file, which the mark does not change.
    """

    step_ratio: float | None
    detection_seconds: float | None
    file_bytes: int | None


@dataclass(frozen=True)
class Modification:
    """An attack at one strength, in the terms of IEEE 3304.

    Attributes:
        family: Family of the attack.
        attack: Name of the attack.
        strength: Strength of the attack.
        unit: Unit of the strength.
        false_negatives: Share of the marked networks in which the mark was not found.
        false_positives: Share of the unmarked networks in which it was found; `None`
            without unmarked networks.
        symbol_error_rate: Mean bit error rate of the marked networks.
        test_error: Mean test error of the marked networks; `None` without data.
    """

    family: str
    attack: str
    strength: float
    unit: str
    false_negatives: float
    false_positives: float | None
    symbol_error_rate: float | None
    test_error: float | None


@dataclass(frozen=True)
class AttackSummary:
    """The outcomes of one attack on the marked network.

    Attributes:
        family: Family of the attack.
        attack: Name of the attack.
        title: Description of the attack.
        unit: Unit of its strength.
        outcomes: Outcomes at all strengths, from the weakest to the strongest, for
            each random seed.
        counted: Those outcomes after which the network is still useful.
        removed: Whether the mark was not found in at least one counted outcome.
    """

    family: str
    attack: str
    title: str
    unit: str
    outcomes: Sequence[Outcome]
    counted: Sequence[Outcome]
    removed: bool

    @property
    def largest_log10_p(self) -> float | None:
        """log10 of the largest p-value of the counted outcomes; `None` without any."""
        return max((outcome.log10_p for outcome in self.counted), default=None)

    @property
    def refused(self) -> str:
        """Reason why the attack does not apply to the network, or an empty string."""
        reasons = [outcome.refused for outcome in self.outcomes]
        return reasons[0] if all(reasons) else ""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The requirements report of a marked network.

    Attributes:
        verification: Verification of the mark in the network before any attack.
        layer: Name of the marked layer.
        data: Name of the data; empty without data.
        seeds: Number of repetitions of each attack.
        tolerance: Largest increase of the test error, as a share, after which the
            network is still useful.
        fidelity: Effect on the host network.
        capacity: Capacity of the kernel.
        security: Attempts to forge or detect the mark.
        efficiency: Cost of the mark.
        outcomes: Outcomes of all attacks on the network, and on unmarked ones.
        attacks: Title and unit of each attack by its name.
    """

    verification: Verification
    layer: str
    data: str
    seeds: int
    tolerance: float
    fidelity: Fidelity
    capacity: Capacity
    security: Security
    efficiency: Efficiency
    outcomes: Sequence[Outcome]
    attacks: dict[str, tuple[str, str]]

    @cached_property
    def attack_summaries(self) -> list[AttackSummary]:
        """The outcomes on the marked network, grouped by attack."""
        marked = [outcome for outcome in self.outcomes if outcome.host == MARKED_HOST]
        error = self.fidelity.test_error
        summaries = []
        for (family, attack), group in _grouped(marked, "family", "attack"):
            counted = [
                outcome for outcome in group if outcome.is_useful(error, self.tolerance)
            ]
            removed = not all(outcome.is_marked(self.alpha) for outcome in counted)
            title, unit = self.attacks[attack]
            summaries.append(
                AttackSummary(family, attack, title, unit, group, counted, removed)
            )
        return summaries

    @property
    def removed(self) -> list[AttackSummary]:
        """The attacks that removed the mark and left the network useful."""
        return [summary for summary in self.attack_summaries if summary.removed]

    @property
    def alpha(self) -> float:
        """Threshold of the corrected p-value below which the mark is found."""
        return self.verification.alpha

    def modifications(self) -> list[Modification]:
        """Returns every attack at every strength, in the terms of IEEE 3304."""
        applied = [outcome for outcome in self.outcomes if not outcome.refused]
        modifications = []
        for (family, attack, strength), group in _grouped(
            applied, "family", "attack", "strength"
        ):
            marked = [outcome for outcome in group if outcome.host == MARKED_HOST]
            unmarked = [outcome for outcome in group if outcome.host != MARKED_HOST]
            modifications.append(
                Modification(
                    family,
                    attack,
                    strength,
                    self.attacks[attack][1],
                    _mean([not outcome.is_marked(self.alpha) for outcome in marked])
                    or 0.0,
                    _mean([outcome.is_marked(self.alpha) for outcome in unmarked]),
                    _mean([outcome.ber for outcome in marked]),
                    _mean([outcome.test_error for outcome in marked]),
                )
            )
        return modifications

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values that JSON can hold."""
        return {
            "method": METHOD,
            "verification": self.verification.to_dict(),
            **{name: getattr(self, name) for name in _SETTINGS},
            **{name: asdict(getattr(self, name)) for name in _REQUIREMENTS},
            "robustness": [
                {name: getattr(summary, name) for name in _VERDICT}
                for summary in self.attack_summaries
            ],
            "modifications": [asdict(item) for item in self.modifications()],
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }


def _grouped(
    outcomes: Sequence[Outcome], *names: str
) -> list[tuple[tuple[Any, ...], list[Outcome]]]:
    """Groups outcomes by some of their attributes, in the order of their appearance."""
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(attrgetter(*names)(outcome), []).append(outcome)
    return list(groups.items())


def _mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the values that are not `None`; `None` without any."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None
