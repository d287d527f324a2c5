"""The requirements report: what was measured, and what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import log10
from pathlib import Path
from typing import Any

from keras_wm.research.evaluation.outcomes import Outcome, found, survives
from keras_wm.utils.atomic import atomic_write
from keras_wm.verification.result import Verification

MARKED_HOST = "marked"
# Of MPAI-NNW, adopted as IEEE 3304-2023.
METHOD = "follows the method of IEEE 3304-2023; not certified as conforming"


@dataclass(frozen=True)
class Fidelity:
    """What the host network lost by being marked.

    Attributes:
        test_error: Of the marked network, a share; `None` without data.
        baseline_error: Of the unmarked twin; `None` without one.
        difference: Marked - unmarked, over the same test examples.
        half_interval: Half the 95 % interval of the difference.
    """

    test_error: float | None = None
    baseline_error: float | None = None
    difference: float | None = None
    half_interval: float | None = None


@dataclass(frozen=True)
class Capacity:
    """How much the marked kernel holds.

    Attributes:
        bits: T, the length of the message.
        size: M, the weights of a filter.
        count: L, the filters.
        holds: How many bits can be read at all.
        unseen: How many fit without being seen, 4 standard deviations clear.
        margin: How far clear the bits are, on the average.
        share: The share of the kernel's norm that the mark takes.
    """

    bits: int
    size: int
    count: int
    holds: int
    unseen: int
    margin: float
    share: float


@dataclass(frozen=True)
class Security:
    """What somebody without the key can do.

    Attributes:
        wrong_keys: How many keys were tried that did not mark the network.
        wrong_keys_found: How many of them were found by mistake.
        smallest_log10_p: log10 of the smallest p-value among them, of one test.
        seconds_a_key: How long a trial takes.
        statistics: What can be seen of the marked kernel, by name, and of the same
            kernel in the unmarked twin.
    """

    wrong_keys: int
    wrong_keys_found: int
    smallest_log10_p: float
    seconds_a_key: float
    statistics: dict[str, tuple[float, float | None]]


@dataclass(frozen=True)
class Efficiency:
    """What the mark costs.

    Attributes:
        step_ratio: A training step with the mark over one without; `None` without
            data.
        detection_seconds: How long it takes to find the mark in the file.
        file_bytes: The size of the file, of which the mark takes nothing.
    """

    step_ratio: float | None
    detection_seconds: float | None
    file_bytes: int | None


@dataclass(frozen=True)
class Modification:
    """An attack of one strength, in the terms of IEEE 3304.

    Attributes:
        family: The attack's family.
        attack: Its name.
        strength: How strong.
        unit: In what.
        false_negatives: The share of marked networks in which no mark was found.
        false_positives: The share of unmarked ones in which one was; `None` without
            unmarked networks.
        symbol_error_rate: The mean bit error rate in the marked ones.
        test_error: Their mean test error; `None` without data.
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
class Resistance:
    """How a mark stood one attack.

    Attributes:
        family: The attack's family.
        attack: Its name.
        title: What it does.
        unit: What its strength counts.
        strengths: What it left, strongest last; of several seeds all.
        counted: Those of them after which the network is worth having.
    """

    family: str
    attack: str
    title: str
    unit: str
    strengths: Sequence[Outcome]
    counted: Sequence[Outcome]

    @property
    def weakest(self) -> float | None:
        """log10 of the largest p-value of those that count; `None` without any."""
        return max((one.log10_p for one in self.counted), default=None)

    @property
    def refused(self) -> str:
        """Why the attack cannot be done at all, or an empty text."""
        reasons = [one.refused for one in self.strengths]
        return reasons[0] if all(reasons) else ""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A marked network's requirements report.

    Attributes:
        verification: The mark in the network as it is.
        layer: The layer that the mark is in.
        data: What to call the data; an empty text without.
        seeds: How often each attack was done.
        tolerance: How many points of error, as a share, an attack may cost and count.
        fidelity: What the host lost.
        capacity: How much the kernel holds.
        security: What somebody without the key can do.
        efficiency: What it costs.
        outcomes: What attacks left of the network, and of unmarked ones.
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
    def resistances(self) -> list[Resistance]:
        """How the mark stood each attack, in their order."""
        by_attack: dict[tuple[str, str], list[Outcome]] = {}
        for one in self.outcomes:
            if one.host == MARKED_HOST:
                by_attack.setdefault((one.family, one.attack), []).append(one)
        error = self.fidelity.test_error
        return [
            Resistance(
                *name,
                *self.attacks[name[1]],
                strengths=found_here,
                counted=[
                    one for one in found_here if survives(one, error, self.tolerance)
                ],
            )
            for name, found_here in by_attack.items()
        ]

    @property
    def removed(self) -> list[Resistance]:
        """The attacks that took the mark away and left the network worth having."""
        return [
            one
            for one in self.resistances
            if one.weakest is not None and one.weakest >= log10(self.alpha)
        ]

    @property
    def alpha(self) -> float:
        """A mark is found with a corrected p-value below this."""
        return self.verification.alpha

    def modifications(self) -> list[Modification]:
        """Every attack of every strength, in the terms of IEEE 3304."""
        places: dict[tuple[str, str, float], list[Outcome]] = {}
        for one in self.outcomes:
            if not one.refused:
                place = (one.family, one.attack, one.strength)
                places.setdefault(place, []).append(one)
        return [self._modification(*place, every) for place, every in places.items()]

    def _modification(
        self, family: str, attack: str, strength: float, every: Sequence[Outcome]
    ) -> Modification:
        marked = [one for one in every if one.host == MARKED_HOST]
        unmarked = [one for one in every if one.host != MARKED_HOST]
        missed = [0.0 if found(one, self.alpha) else 1.0 for one in marked]
        mistaken = [1.0 if found(one, self.alpha) else 0.0 for one in unmarked]
        return Modification(
            family,
            attack,
            strength,
            self.attacks[attack][1],
            _mean(missed) or 0.0,
            _mean(mistaken),
            _mean([one.ber for one in marked]),
            _mean([one.test_error for one in marked]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain Python values that JSON can hold."""
        return {
            "method": METHOD,
            "verification": self.verification.to_dict(),
            "layer": self.layer,
            "data": self.data,
            "seeds": self.seeds,
            "tolerance": self.tolerance,
            "fidelity": asdict(self.fidelity),
            "capacity": asdict(self.capacity),
            "security": asdict(self.security),
            "efficiency": asdict(self.efficiency),
            "robustness": [
                {
                    "family": one.family,
                    "attack": one.attack,
                    "weakest_log10_p": one.weakest,
                    "removed": one in self.removed,
                    "refused": one.refused,
                }
                for one in self.resistances
            ],
            "modifications": [asdict(one) for one in self.modifications()],
            "outcomes": [one.to_dict() for one in self.outcomes],
        }

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Writes `evaluation.json` and `evaluation.html`, which needs no other file.

        Raises:
            ImportError: If the extra `report` is missing.
        """
        from keras_wm.research.evaluation.html_report import page

        html = page(self)
        folder.mkdir(parents=True, exist_ok=True)
        files = folder / "evaluation.json", folder / "evaluation.html"
        texts = json.dumps(self.to_dict(), indent=2) + "\n", html
        for file, text in zip(files, texts, strict=True):
            with atomic_write(file, overwrite=True) as path:
                path.write_text(text, encoding="utf-8")
        return files


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [one for one in values if one is not None]
    return sum(numbers) / len(numbers) if numbers else None
