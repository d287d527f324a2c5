"""The study of notebooks/self_learning_monte_carlo.ipynb, part by part.

Each part is kept in a file as soon as it is done, so that a study that was stopped goes
on where it was, and what is shown need not be sampled again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from keras_wm.embedding.kernel_projection import without_capacity_warnings
from keras_wm.embedding.publishing import publish
from keras_wm.embedding.regularizer import WatermarkRegularizer
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.key_source import SecretSource
from keras_wm.scheme.secret import Secret
from keras_wm.slmc.cost import costs
from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.learning.fit import Samples, fit
from keras_wm.slmc.learning.online import Schedule, Stage, learn, learn_linear
from keras_wm.slmc.learning.scaling import points
from keras_wm.slmc.models.effective_model import attentions, effective_model, on_lattice
from keras_wm.slmc.models.linear_model import fit_linear
from keras_wm.slmc.samplers.chain import OBSERVABLES, SPINS, Series, run
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.metropolis import Metropolis
from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
from keras_wm.slmc.samplers.sampler import Sampler
from keras_wm.slmc.samplers.self_learning import SelfLearning
from keras_wm.slmc.statistics import blocked_error
from keras_wm.utils.progress import tracked
from keras_wm.utils.records import RecordFile
from keras_wm.verification.verification import verify

# Name of the format of the records, and its version.
_RECORDS_FORMAT = {"keras_wm_slmc_study": 1}
# Given what was found before.
Part = Callable[[dict[str, Any]], Any]
_MEASURING, _SETTLING = 3, 4
_SETTLING_EPOCHS = 20
_COST_BLOCKS = 2
_MEASURED = ("m2", "ms2", "energy", "acceptance")


@dataclass(frozen=True)
class Mark:
    """What is put into a block of attention.

    A small kernel has room for few bits, and none unseen.

    Attributes:
        heads: Of the block: the more, the larger its kernel.
        bits: T.
        margin: How many standard deviations each bit is pushed clear.
        strength: The factor of the penalty.
    """

    heads: int = 16
    bits: int = 16
    margin: float = 2.2
    strength: float = 0.03

    def key(self, seed: int) -> WatermarkKey:
        """The key of a training, which everybody can make: it keeps no secret."""
        secret = hashlib.sha256(f"keras_wm slmc {seed}".encode()).digest()
        source = SecretSource(
            Secret(secret), f"owner {seed}", self.bits, "random", "keyed", self.bits
        )
        return WatermarkKey(source)


@dataclass(frozen=True)
class Study:
    """What is done, and how long.

    Attributes:
        size: L, of L x L sites.
        beta: The inverse temperature of all but the linear and the temperature parts.
        shells: How many shells the truncated models see.
        betas: The inverse temperatures of the other parts.
        linear_shells: How many shells linear models see.
        heads: How many attentions a block adds up.
        blocks: L, with how many blocks learning ends.
        seeds: How many trainings.
        sizes: The lattices whose cost is measured.
        chains: How many chains measure.
        steps: How many proposals, or sweeps of plain Metropolis, are measured.
        schedule: Of learning.
        mark: What is put into the marked models.
    """

    size: int = 6
    beta: float = 20.0
    shells: int = 6
    betas: tuple[float, ...] = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0)
    linear_shells: tuple[int, ...] = (1, 2, 3, 6, 9)
    heads: int = 1
    blocks: int = 4
    seeds: int = 3
    sizes: tuple[int, ...] = (4, 6, 8, 10)
    chains: int = 64
    steps: int = 200
    schedule: Schedule = field(default_factory=Schedule)
    mark: Mark = field(default_factory=Mark)

    def exact(self, beta: float | None = None) -> DoubleExchange:
        """The exact model, at the study's own temperature unless told."""
        return DoubleExchange(square_lattice(self.size), beta or self.beta)

    def parts(self) -> Iterator[tuple[str, Part]]:
        """All parts, by name."""
        for beta in self.betas:
            yield f"linear, beta {beta:g}", partial(_linear, self, beta)
        for seed in range(self.seeds):
            yield f"attention, seed {seed}", partial(_attention, self, seed)
        for size in self.sizes:
            yield f"cost, size {size}", partial(_cost, self, size)
        for seed in range(self.seeds):
            for marked in (False, True):
                name = f"{'marked' if marked else 'unmarked'}, seed {seed}"
                yield name, partial(_marked, self, seed, marked)


FAST = Study(
    size=4,
    beta=5.0,
    shells=2,
    betas=(5.0,),
    linear_shells=(1, 5),
    blocks=2,
    seeds=1,
    sizes=(2, 3),
    chains=16,
    steps=10,
    schedule=Schedule(64, 3, 2, 2),
)


def run_study(study: Study, records: Path, console: Console) -> dict[str, Any]:
    """Does what is left of a study.

    Args:
        study: What is done.
        records: A file of JSON lines, to which the result of each part is appended.
        console: Where it says how far it is.

    Returns:
        What each part found, by its name.

    Raises:
        ValueError: If the file holds another study.
        FileNotFoundError: If its folder is not there.
    """
    header = _RECORDS_FORMAT | asdict(study)
    kept = RecordFile(records, lambda line: (line["part"], line["result"]), header)
    found: dict[str, Any] = dict(kept.results)
    left = [one for one in study.parts() if one[0] not in found]
    for name, part in tracked(left, "parts of the study", not console.quiet):
        console.print(name)
        found[name] = part(found)
        kept.append({"part": name, "result": found[name]})
    return found


def _linear(study: Study, beta: float, _found: dict[str, Any]) -> dict[str, Any]:
    """Plain Metropolis, and linear models of few shells and of all."""
    model = study.exact(beta)
    _, spins = learn_linear(model, None, study.schedule, seed=0)
    chain = Metropolis(model, study.chains, (0, _MEASURING), spins[: study.chains])
    series = run(chain, study.steps, _to_rest(study.steps), OBSERVABLES | SPINS)
    samples = Samples.of_chains(series["spins"], series["log_weight"])
    found: dict[str, Any] = {"metropolis": _figures(series)}
    for shells in study.linear_shells:
        linear = fit_linear(model.lattice, samples.spins, samples.log_weights, shells)
        proposal = HeatBath(linear, study.schedule.sweeps)
        stream = (0, _MEASURING, shells)
        own = SelfLearning(model, proposal, study.chains, stream, chain.spins)
        figures = _measured(own, study.steps)
        found[str(shells)] = figures | {"couplings": linear.couplings.tolist()}
    return found


def _attention(study: Study, seed: int, _found: dict[str, Any]) -> list[dict[str, Any]]:
    """A model that grows, its weights, and what its own proposals are worth."""
    model = study.exact()
    found = []
    stages = learn(model, study.shells, study.blocks, study.schedule, seed, study.heads)
    for stage in stages:
        (point,) = points(seed, [stage])
        weights = [np.asarray(one).tolist() for one in stage.model.get_weights()]
        found.append(point.to_dict() | {"weights": weights})
    return found


def _cost(study: Study, size: int, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The cost by all samplers, by attention where the lattice has its shells."""
    model = DoubleExchange(square_lattice(size), study.beta)
    effective: keras.Model | None = None
    if study.seeds:
        stage = found["attention, seed 0"][min(_COST_BLOCKS, study.blocks)]
        own = square_lattice(study.size)
        trained = effective_model(own, study.shells, stage["blocks"], study.heads)
        trained.set_weights([np.asarray(one) for one in stage["weights"]])
        with suppress(ValueError):
            effective = on_lattice(trained, model.lattice)
    if effective is not None and size != study.size:
        _settle(study, effective, model)
    every = costs(model, effective, study.schedule.sweeps)
    return [asdict(one) | {"sample_ms": one.sample_ms} for one in every]


def _settle(study: Study, effective: keras.Model, model: DoubleExchange) -> None:
    """Goes on training on a lattice, since scores add up over all of its sites."""
    schedule = replace(study.schedule, chains=study.chains)
    linear, spins = learn_linear(model, None, schedule, seed=0)
    proposal = HeatBath(linear, schedule.sweeps)
    chain = SelfLearning(model, proposal, study.chains, (0, _SETTLING), spins)
    series = run(chain, study.steps, _to_rest(study.steps), OBSERVABLES | SPINS)
    samples = Samples.of_chains(series["spins"], series["log_weight"])
    fit(effective, samples, _SETTLING_EPOCHS, schedule.learning_rate)


def _marked(
    study: Study, seed: int, marked: bool, _found: dict[str, Any]
) -> dict[str, Any]:
    """A wide block of attention with a mark or without, and the file's verdict."""
    mark, key = study.mark, study.mark.key(seed)
    model = study.exact()
    with without_capacity_warnings():
        penalty = WatermarkRegularizer(key, strength=mark.strength, margin=mark.margin)
        stages = learn(
            *(model, study.shells, 1, study.schedule, seed, mark.heads),
            kernel_regularizer=penalty if marked else None,
        )
        *_, stage = stages
    proposal = NeuralMetropolis(stage.model, study.schedule.sweeps)
    _, spins = learn_linear(model, None, study.schedule, seed)
    # Other random numbers with the mark, or both would measure the same chains.
    stream = (seed, _MEASURING, int(marked))
    chain = SelfLearning(model, proposal, study.chains, stream, spins[: study.chains])
    figures = _measured(chain, study.steps)
    return figures | {"variance": stage.variance} | _verdict(stage, key)


def _verdict(stage: Stage, key: WatermarkKey) -> dict[str, Any]:
    """What is found in the published file of a model."""
    layer = attentions(stage.model)[0].name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "effective.keras")
        publish(stage.model, path)
        found = verify(path, key, layer)
    return {"ber": found.ber, "log10_p": found.log10_p, "verdict": found.verdict}


def _measured(chain: Sampler, steps: int) -> dict[str, Any]:
    """Means with errors, by chains that had time to forget where they began."""
    return _figures(run(chain, steps, _to_rest(steps)))


def _to_rest(steps: int) -> int:
    return max(8, steps // 10)


def _figures(series: Series) -> dict[str, Any]:
    figures: dict[str, Any] = {
        name: [float(series[name].mean()), blocked_error(series[name], 1)]
        for name in _MEASURED
    }
    if "delta" in series:
        figures["delta_variance"] = float(series["delta"].var())
    return figures
