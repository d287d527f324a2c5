"""Running attacks on a network and searching for its mark in the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log10
from typing import Any

import keras

from keras_wm.research.attacks.attack import Attack
from keras_wm.research.datasets import Examples
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.search_result import SearchResult
from keras_wm.verification.verification import verify

Families = Mapping[str, Sequence[Attack]]
MARKED_HOST = "marked"


@dataclass(frozen=True)
class Outcome:
    """The result of one attack at one strength.

    Attributes:
        family: Family of the attack.
        attack: Name of the attack.
        strength: Strength, in the attack's unit.
        seed: Random seed of the attack.
        host: `"marked"`, or the name of an unmarked network that was also attacked.
        test_error: Share of the test examples that the attacked network
            misclassifies; `None` without data.
        ber: Bit error rate; `None` if no kernel can hold the message.
        log10_p: log10 of the mark's p-value, corrected for all tests.
        aligned: Whether the p-value was found by alignment with the owner's network,
            which is tried if bits are wrong.
        refused: Reason why the attack does not apply to this network, or an empty
            string.
    """

    family: str
    attack: str
    strength: float
    seed: int
    host: str = MARKED_HOST
    test_error: float | None = None
    ber: float | None = None
    log10_p: float = 0.0
    aligned: bool = False
    refused: str = ""

    def is_useful(self, error: float | None, tolerance: float) -> bool:
        """Returns whether the attacked network is still useful.

        Args:
            error: Test error before the attack. Without data it is `None`, and every
                attacked network counts as useful.
            tolerance: Largest increase of the test error.
        """
        if self.refused:
            return False
        if self.test_error is None or error is None:
            return True
        return self.test_error <= error + tolerance

    def is_marked(self, alpha: float) -> bool:
        """Returns whether the mark was found, with a p-value below alpha."""
        return self.log10_p < log10(alpha)


@dataclass(frozen=True)
class Subject:
    """A network to attack, and the mark to look for in the results.

    Attributes:
        model: The network.
        key: The owner's key.
        layer: Name of the layer that carries the mark.
        owners: The owner's marked network, with which attacked networks are aligned.
        host: Name of the network, as in `Outcome`.
    """

    model: Any
    key: WatermarkKey
    layer: str
    owners: Any
    host: str = MARKED_HOST


def outcomes(
    subject: Subject, families: Families, data: Examples | None, seeds: int
) -> Iterator[Outcome]:
    """Runs attacks on a network, and searches for its mark after each of them.

    Args:
        subject: The network.
        families: The attacks. Without data, none of them can need data.
        data: Data to train on and to measure test errors on.
        seeds: Number of repetitions of each attack.

    Yields:
        An `Outcome` for each strength and seed of each attack.
    """
    for family, attacks in families.items():
        for attack in attacks:
            for seed in range(seeds):
                for strength in attack.strengths:
                    case = Outcome(family, attack.name, strength, seed, subject.host)
                    yield _outcome(subject, attack, case, data)
                    # Keras holds global state for every network that attacks build.
                    keras.utils.clear_session()


def _outcome(
    subject: Subject, attack: Attack, case: Outcome, data: Examples | None
) -> Outcome:
    try:
        attacked = attack(subject.model, data, case.strength, case.seed)
    except ValueError as error:
        return replace(case, refused=str(error))
    result, aligned = _search(subject, attacked)
    return replace(
        case,
        test_error=None if data is None else data.test_error(attacked),
        ber=result.detection.ber if result.detection else None,
        log10_p=result.log10_p_corrected,
        aligned=aligned,
    )


def _search(subject: Subject, attacked: Any) -> tuple[SearchResult, bool]:
    """Returns the more significant result, and whether it is the aligned one.

    Alignment is tried if bits are wrong. The owner evaluates his own mark, so that the
    standing of a result does not matter.
    """
    try:
        unaligned = verify(attacked, subject.key, subject.layer).finding
    except ValueError:
        # The attack can have removed the layer, or made it too small for the message.
        unaligned = verify(attacked, subject.key).finding
    if unaligned.detection and not unaligned.detection.ber:
        return unaligned, False
    aligned = verify(attacked, subject.key, reference=subject.owners).most_significant
    if aligned.log10_p_corrected < unaligned.log10_p_corrected:
        return aligned, True
    return unaligned, False
