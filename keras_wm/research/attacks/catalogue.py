"""The catalogue of all attacks, by family and by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from keras_wm.research.attacks import (
    equivalence,
    export,
    fine_tuning,
    merging,
    obfuscation,
)
from keras_wm.research.attacks.adaptive import projection, reset
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.attacks.collusion import (
    Choice,
    Side,
    averaging,
    choosing,
    difference_removal,
)
from keras_wm.research.attacks.compression import LOW_RANK, TERNARY
from keras_wm.research.attacks.distillation import DISTILLATION
from keras_wm.research.attacks.fine_tuning import REGULARIZATION, with_fine_tuning
from keras_wm.research.attacks.fusion import FUSION
from keras_wm.research.attacks.overwriting import overwriting
from keras_wm.research.attacks.perturbation import (
    CLUSTERING,
    NOISE,
    QUANTIZATION,
    SHIFTING,
)
from keras_wm.research.attacks.pruning import (
    FILTER_PRUNING,
    GLOBAL_PRUNING,
    PRUNING,
    RANDOM_PRUNING,
)
from keras_wm.research.attacks.redrawing import Shown, redrawing
from keras_wm.research.attacks.rotation import HEAD_ROTATION


def families(
    layer: str | None = None, copies: Sequence[Any] = ()
) -> dict[str, tuple[Attack, ...]]:
    """Returns all attacks by the name of their family.

    Args:
        layer: Name of the marked layer, if the attacker knows it. Attacks that target
            single layers then change that layer only. `None` targets every layer.
        copies: Further copies of the network that the attacker has. Without copies,
            the family `"collusion"` is missing.
    """
    colluding = {"collusion": _collusion(copies)} if copies else {}
    projected, reinitialized = projection(layer), reset(layer)
    pruned = (PRUNING, GLOBAL_PRUNING, FILTER_PRUNING)
    redrawn = redrawing("ridge", layer)
    all_redrawn = replace(redrawing("ridge"), name="ridge-task-everywhere")
    return {
        "fine-tuning": fine_tuning.KINDS,
        "pruning": (
            *(*pruned, RANDOM_PRUNING),
            *(with_fine_tuning(attack, keep_zeros=True) for attack in pruned),
        ),
        "quantization": (QUANTIZATION, CLUSTERING),
        "perturbation": (NOISE, SHIFTING, with_fine_tuning(SHIFTING)),
        "regularization": (REGULARIZATION,),
        "overwriting": (
            overwriting("mean", layer),
            overwriting("mean", layer, "rate"),
            overwriting("mean", layer, "bits"),
            overwriting("keyed", layer),
            overwriting("keyed", layer, "rate"),
            overwriting("keyed", layer, "bits"),
        ),
        "adaptive": (
            overwriting("keyed", layer, "keys"),
            overwriting("keyed", layer, "rounds"),
            *(projected, with_fine_tuning(projected)),
            *(reinitialized, with_fine_tuning(reinitialized)),
        ),
        "redrawing": (
            *(redrawn, with_fine_tuning(redrawn)),
            redrawing("ridge", layer, "noise"),
            *(all_redrawn, with_fine_tuning(all_redrawn)),
            redrawing("relearning", layer),
            *(redrawing("unseen-noise", layer, shown) for shown in get_args(Shown)),
        ),
        "compression": (
            *(LOW_RANK, with_fine_tuning(LOW_RANK)),
            *(TERNARY, with_fine_tuning(TERNARY)),
        ),
        "merging": merging.ATTACKS,
        "distillation": (DISTILLATION,),
        **colluding,
        "equivalence": (*equivalence.ATTACKS, with_fine_tuning(equivalence.CHAINED)),
        "rotation": (HEAD_ROTATION, with_fine_tuning(HEAD_ROTATION)),
        "obfuscation": obfuscation.ATTACKS,
        "fusion": (FUSION,),
        "export": export.ATTACKS,
    }


def _collusion(copies: Sequence[Any]) -> tuple[Attack, ...]:
    return (
        averaging(copies),
        *(difference_removal(copies, side) for side in get_args(Side)),
        *(choosing(copies, choice) for choice in get_args(Choice)),
    )


def select_families(
    available: Mapping[str, tuple[Attack, ...]], names: Sequence[str] | None
) -> dict[str, tuple[Attack, ...]]:
    """Returns the named families, in their order in `available`.

    Args:
        available: Families of attacks by name.
        names: Names of families. `None` selects all.

    Raises:
        ValueError: If a name is unknown.
    """
    unknown = [name for name in names or () if name not in available]
    if unknown:
        raise ValueError(
            f"Expected families among {', '.join(available)}. Received: "
            f"{', '.join(unknown)}"
        )
    return {
        name: attacks
        for name, attacks in available.items()
        if names is None or name in names
    }


def attacks(layer: str | None = None, copies: Sequence[Any] = ()) -> dict[str, Attack]:
    """Returns all attacks by name. The arguments are those of `families`.

    Example:

    ```python
    for name, attack in attacks("conv2_block1_conv2").items():
        for strength in attack.strengths:
            attacked = attack(model, pictures, strength)
    ```
    """
    return {
        attack.name: attack
        for family in families(layer, copies).values()
        for attack in family
    }
