"""Study behind notebooks/self_learning_monte_carlo.ipynb.

The result of each part is written to a file as soon as it is complete. An interrupted
study resumes from this file, and the notebook reads it instead of sampling again.
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

from keras_wm.embedding.loss.kernel_projection import without_capacity_warnings
from keras_wm.embedding.publishing import publish
from keras_wm.embedding.regularizer import WatermarkRegularizer
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import SecretSource
from keras_wm.slmc.cost import measure_costs
from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.learning.fit import fit
from keras_wm.slmc.learning.online import Schedule, Stage, learn, learn_linear
from keras_wm.slmc.learning.samples import Samples
from keras_wm.slmc.learning.scaling import Point
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
# Computes a part of the study from the results of the earlier parts.
Part = Callable[[dict[str, Any]], Any]
# Numbers in the seeds of independent random streams.
_MEASURING, _RETRAINING = 3, 4
_RETRAINING_EPOCHS = 20
# Number of blocks of the attention model whose cost is measured.
_COST_BLOCKS = 2
_MEASURED = ("m2", "ms2", "energy", "acceptance")


@dataclass(frozen=True)
class MarkSettings:
    """Watermark of an attention block.

    The kernel of a block is small. It holds few bits, and none that stay undetectable.

    Attributes:
        heads: Number of heads of the block. More heads make a larger kernel.
        bits: Number of bits T.
        margin: Score z that training aims at for every bit, in standard deviations.
        strength: Factor of the embedding loss.
    """

    heads: int = 16
    bits: int = 16
    margin: float = 2.2
    strength: float = 0.03

    def key(self, seed: int) -> WatermarkKey:
        """Returns the key of one training. It is reproducible, hence not secret."""
        secret = hashlib.sha256(f"keras_wm slmc {seed}".encode()).digest()
        source = SecretSource(
            Secret(secret), f"owner {seed}", self.bits, "random", "keyed"
        )
        return WatermarkKey(source)


@dataclass(frozen=True)
class Study:
    """Settings of the study.

    Attributes:
        size: L of the lattice of L x L sites.
        beta: Inverse temperature of the parts on attention, cost and watermarks.
        shells: Number of shells that the attention models see.
        betas: Inverse temperatures of the part on linear models.
        linear_shells: Numbers of shells of the linear models.
        heads: Number of heads per block.
        blocks: Final number of attention blocks L.
        seeds: Number of trainings.
        sizes: Lattice sizes whose cost is measured.
        chains: Number of chains in a measurement.
        steps: Number of measured proposals, or of sweeps of plain Metropolis.
        schedule: Amounts of sampling and training while learning.
        mark: Watermark of the marked models.
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
    mark: MarkSettings = field(default_factory=MarkSettings)

    def exact_model(self, beta: float | None = None) -> DoubleExchange:
        """Makes the exact model, at the study's temperature by default."""
        return DoubleExchange(square_lattice(self.size), beta or self.beta)

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Yields the name and the function of each part."""
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
    """Runs the parts of a study that are not in its records yet.

    Args:
        study: Settings.
        records: File of JSON lines, to which the result of each part is appended.
        console: Console for progress messages.

    Returns:
        The result of each part by its name.

    Raises:
        ValueError: If the file holds the results of other settings.
        FileNotFoundError: If the file's folder does not exist.
    """
    header = _RECORDS_FORMAT | asdict(study)
    file = RecordFile(records, lambda line: (line["part"], line["result"]), header)
    results: dict[str, Any] = dict(file.results)
    remaining = [part for part in study.parts() if part[0] not in results]
    for name, part in tracked(remaining, "parts of the study", not console.quiet):
        console.print(name)
        results[name] = part(results)
        file.append({"part": name, "result": results[name]})
    return results


def _linear(study: Study, beta: float, _results: dict[str, Any]) -> dict[str, Any]:
    """Samples with plain Metropolis, and with linear models of several shells."""
    model = study.exact_model(beta)
    _, spins = learn_linear(model, None, study.schedule, seed=0)
    chain = Metropolis(model, study.chains, (0, _MEASURING), spins[: study.chains])
    series = _run(chain, study.steps)
    samples = Samples.from_series(series)
    results: dict[str, Any] = {"metropolis": _summary(series)}
    for shells in study.linear_shells:
        linear = fit_linear(model.lattice, samples.spins, samples.log_weights, shells)
        proposal = HeatBath(linear, study.schedule.sweeps)
        stream = (0, _MEASURING, shells)
        own = SelfLearning(model, proposal, study.chains, stream, chain.spins)
        summary = _summary(_run(own, study.steps))
        results[str(shells)] = summary | {"couplings": linear.couplings.tolist()}
    return results


def _attention(
    study: Study, seed: int, _results: dict[str, Any]
) -> list[dict[str, Any]]:
    """Trains a model block by block; each stage's quality and weights."""
    model = study.exact_model()
    results = []
    stages = learn(model, study.shells, study.blocks, study.schedule, seed, study.heads)
    for stage in stages:
        point = Point.from_stage(seed, stage)
        weights = [value.tolist() for value in stage.model.get_weights()]
        results.append(point.to_dict() | {"weights": weights})
    return results


def _cost(study: Study, size: int, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Measures costs; those of attention only if the lattice has its shells."""
    model = DoubleExchange(square_lattice(size), study.beta)
    effective: keras.Model | None = None
    if study.seeds:
        stage = results["attention, seed 0"][min(_COST_BLOCKS, study.blocks)]
        own = square_lattice(study.size)
        trained = effective_model(own, study.shells, stage["blocks"], study.heads)
        trained.set_weights([np.asarray(value) for value in stage["weights"]])
        with suppress(ValueError):
            effective = on_lattice(trained, model.lattice)
    if effective is not None and size != study.size:
        _retrain(study, effective, model)
    costs = measure_costs(model, effective, study.schedule.sweeps)
    return [asdict(cost) | {"sample_ms": cost.sample_ms} for cost in costs]


def _retrain(study: Study, effective: keras.Model, model: DoubleExchange) -> None:
    """Continues a training on another lattice.

    Attention scores are summed over all sites, so their scale depends on the lattice.
    """
    schedule = replace(study.schedule, chains=study.chains)
    linear, spins = learn_linear(model, None, schedule, seed=0)
    proposal = HeatBath(linear, schedule.sweeps)
    chain = SelfLearning(model, proposal, study.chains, (0, _RETRAINING), spins)
    samples = Samples.from_series(_run(chain, study.steps))
    fit(effective, samples, _RETRAINING_EPOCHS, schedule.learning_rate)


def _marked(
    study: Study, seed: int, marked: bool, _results: dict[str, Any]
) -> dict[str, Any]:
    """Trains a wide block with or without a watermark, samples, and verifies it."""
    mark, key = study.mark, study.mark.key(seed)
    model = study.exact_model()
    with without_capacity_warnings():
        penalty = WatermarkRegularizer(key, strength=mark.strength, margin=mark.margin)
        own = penalty if marked else None
        *_, stage = learn(model, study.shells, 1, study.schedule, seed, mark.heads, own)
    proposal = NeuralMetropolis(stage.model, study.schedule.sweeps)
    _, spins = learn_linear(model, None, study.schedule, seed)
    # Different random numbers with the mark: otherwise the chains would be correlated.
    stream = (seed, _MEASURING, int(marked))
    chain = SelfLearning(model, proposal, study.chains, stream, spins[: study.chains])
    summary = _summary(_run(chain, study.steps))
    return summary | {"variance": stage.variance} | _verification(stage, key)


def _verification(stage: Stage, key: WatermarkKey) -> dict[str, Any]:
    """Publishes a model and verifies the key in the file."""
    layer = attentions(stage.model)[0].name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "effective.keras")
        publish(stage.model, path)
        result = verify(path, key, layer)
    return {"ber": result.ber, "log10_p": result.log10_p, "verdict": result.verdict}


def _run(chain: Sampler, steps: int) -> Series:
    """Runs chains after a thermalisation of a tenth of the steps, at least 8."""
    return run(chain, steps, max(8, steps // 10), OBSERVABLES | SPINS)


def _summary(series: Series) -> dict[str, Any]:
    """Returns means with errors, and the variance of delta if it was measured."""
    summary: dict[str, Any] = {
        name: [float(series[name].mean()), blocked_error(series[name], 1)]
        for name in _MEASURED
    }
    if "delta" in series:
        summary["delta_variance"] = float(series["delta"].var())
    return summary
