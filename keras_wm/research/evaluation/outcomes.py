"""What attacks leave of a network and of its mark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log10
from typing import Any

import keras

from keras_wm.research.attacks.attack import Attack
from keras_wm.research.datasets import Examples
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.result import Verification
from keras_wm.verification.verification import verify

Families = Mapping[str, Sequence[Attack]]


@dataclass(frozen=True)
class Outcome:
    """What one attack of one strength left.

    Attributes:
        family: The attack's family.
        attack: Its name.
        strength: How strong it was, in the attack's unit.
        seed: Of all that was random.
        host: `"marked"`, or the name of an unmarked network that was attacked too.
        test_error: The share of test examples that the attacked network gets wrong;
            `None` without data.
        ber: The bit error rate; `None` where no kernel can hold the message.
        log10_p: log10 of the p-value of the mark, corrected for the places tried.
        aligned: Whether this is by alignment with the owner's own network, which is
            tried where bits are lost.
        refused: Why the attack cannot be done to this network, or an empty text.
    """

    family: str
    attack: str
    strength: float
    seed: int
    host: str = "marked"
    test_error: float | None = None
    ber: float | None = None
    log10_p: float = 0.0
    aligned: bool = False
    refused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain Python values that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """A network that is attacked, and what is looked for in it.

    Attributes:
        model: The network.
        key: The owner's key.
        layer: The layer that the mark is in.
        owners: The owner's own marked network, which attacked ones are aligned with.
        host: As in `Outcome`.
    """

    model: Any
    key: WatermarkKey
    layer: str
    owners: Any
    host: str = "marked"


def outcomes(
    subject: Subject,
    families: Families,
    data: Examples | None,
    seeds: int,
) -> Iterator[Outcome]:
    """Attacks a network in every way, and looks for its mark each time.

    Args:
        subject: The network.
        families: The attacks; none that trains without data.
        data: What attacks train on, and what errors are measured on.
        seeds: How often each is done.

    Yields:
        An `Outcome` for each strength and seed of each attack.
    """
    for family, attacks in families.items():
        for attack in attacks:
            for seed in range(seeds):
                for strength in attack.strengths:
                    at = (family, attack.name, strength, seed, subject.host)
                    yield _outcome(subject, attack, at, data)
                    # Every attack builds networks, which Keras keeps track of.
                    keras.utils.clear_session()


def _outcome(
    subject: Subject,
    attack: Attack,
    at: tuple[str, str, float, int, str],
    data: Examples | None,
) -> Outcome:
    _, _, strength, seed, _ = at
    try:
        attacked = attack(subject.model, data, strength, seed)
    except ValueError as error:
        return Outcome(*at, refused=str(error))
    found, aligned = _found(subject, attacked)
    return Outcome(
        *at,
        test_error=None if data is None else data.test_error(attacked),
        ber=found.ber if found.detection else None,
        log10_p=found.log10_p,
        aligned=aligned,
    )


def _found(subject: Subject, attacked: Any) -> tuple[Verification, bool]:
    """The mark as it is; where bits are lost, by alignment if that shows more."""
    names = {layer.name for layer in attacked.layers}
    layer = subject.layer if subject.layer in names else None
    try:
        found = verify(attacked, subject.key, layer)
    except ValueError:
        # The layer may have another shape now, in which the message has no room.
        found = verify(attacked, subject.key)
    if found.detection and not found.ber:
        return found, False
    aligned = verify(attacked, subject.key, reference=subject.owners)
    return (aligned, True) if aligned.log10_p < found.log10_p else (found, False)


def survives(outcome: Outcome, error: float | None, tolerance: float) -> bool:
    """Whether an attacked network is still worth having."""
    if outcome.refused:
        return False
    if outcome.test_error is None or error is None:
        return True
    return outcome.test_error <= error + tolerance


def found(outcome: Outcome, alpha: float) -> bool:
    """Whether the mark was found."""
    return outcome.log10_p < log10(alpha)
