"""All attacks, by family and by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_wm.research.attacks import export, obfuscation
from keras_wm.research.attacks.adaptive import projection, reset
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.attacks.collusion import averaging
from keras_wm.research.attacks.distillation import DISTILLATION
from keras_wm.research.attacks.equivalence import (
    CHAINED,
    PERMUTATION,
    SCALING,
    SIGN_FLIPS,
)
from keras_wm.research.attacks.fine_tuning import (
    FTAL,
    FTLL,
    RTAL,
    RTLL,
    then_fine_tuned,
)
from keras_wm.research.attacks.fusion import FUSION
from keras_wm.research.attacks.overwriting import overwriting
from keras_wm.research.attacks.perturbation import NOISE, SHIFTING
from keras_wm.research.attacks.pruning import (
    FILTER_PRUNING,
    GLOBAL_PRUNING,
    PRUNING,
    RANDOM_PRUNING,
)
from keras_wm.research.attacks.quantization import CLUSTERING, QUANTIZATION
from keras_wm.research.attacks.regularization import REGULARIZATION


def families(
    layer: str | None = None, copies: Sequence[Any] = ()
) -> dict[str, tuple[Attack, ...]]:
    """All attacks, by the name of their family.

    Args:
        layer: The name of the marked layer, where the attacker knows it: he
            overwrites that one alone. `None` is every layer.
        copies: Further copies of the network that the attacker has. Without, the
            family `"collusion"` is missing.
    """
    colluding = {"collusion": (averaging(copies),)} if copies else {}
    projected, alone = projection(layer), reset(layer)
    pruned = (PRUNING, GLOBAL_PRUNING, FILTER_PRUNING)
    return {
        "fine-tuning": (FTLL, FTAL, RTLL, RTAL),
        "pruning": (
            *(*pruned, RANDOM_PRUNING),
            *(then_fine_tuned(one, zeros_stay=True) for one in pruned),
        ),
        "quantization": (QUANTIZATION, CLUSTERING),
        "perturbation": (NOISE, SHIFTING, then_fine_tuned(SHIFTING)),
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
            *(projected, then_fine_tuned(projected)),
            *(alone, then_fine_tuned(alone)),
        ),
        "distillation": (DISTILLATION,),
        **colluding,
        "equivalence": (
            *(PERMUTATION, SCALING, SIGN_FLIPS, CHAINED),
            then_fine_tuned(CHAINED),
        ),
        "obfuscation": (
            obfuscation.UNHEEDED,
            obfuscation.CANCELLING,
            obfuscation.SHARING,
        ),
        "fusion": (FUSION,),
        "export": (*export.FILES, *export.HALVES),
    }


def families_named(
    every: Mapping[str, tuple[Attack, ...]], names: Sequence[str] | None
) -> dict[str, tuple[Attack, ...]]:
    """The families of these names, in their order in `every`; of `None`, all.

    Raises:
        ValueError: If there is no such family.
    """
    unknown = [name for name in names or () if name not in every]
    if unknown:
        raise ValueError(
            f"Expected families among {', '.join(every)}. Received: "
            f"{', '.join(unknown)}"
        )
    return {
        name: attacks
        for name, attacks in every.items()
        if names is None or name in names
    }


def attacks(layer: str | None = None, copies: Sequence[Any] = ()) -> dict[str, Attack]:
    """All attacks, by name; arguments as for `families`.

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
