"""Runs of Markov chains: thermalisation, measurement and checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from keras_wm.slmc.observables import (
    squared_magnetisation,
    squared_staggered_magnetisation,
)
from keras_wm.slmc.samplers.sampler import Sampler, State
from keras_wm.slmc.samplers.self_learning import SelfLearning
from keras_wm.utils.arrays import Floats
from keras_wm.utils.atomic import atomic_write, check_folder
from keras_wm.utils.progress import progress_bar

# Computes a quantity of every chain of a sampler, shape `(chains, ...)`.
Observable = Callable[[Any], Floats]
# A quantity by its name, shape `(steps, chains, ...)`.
Series = dict[str, Floats]

INTERVAL = 100
# Names of the arrays in a checkpoint.
_DESCRIPTION, _STEPS = "description", "steps"
_SERIES, _STATE = "series/", "state/"

OBSERVABLES: dict[str, Observable] = {
    "m2": lambda chain: squared_magnetisation(chain.spins, chain.model.lattice),
    "ms2": lambda chain: squared_staggered_magnetisation(
        chain.spins, chain.model.lattice
    ),
    "energy": lambda chain: chain.electrons.energy,
    "density": lambda chain: chain.electrons.density,
    "log_weight": lambda chain: chain.electrons.log_weight,
    "acceptance": lambda chain: chain.accepted,
}
# Together with "log_weight", the training data of effective models.
SPINS: dict[str, Observable] = {"spins": lambda chain: chain.spins}


def run(
    sampler: Sampler,
    steps: int,
    thermalisation: int = 0,
    observables: Mapping[str, Observable] = OBSERVABLES,
    checkpoint: str | os.PathLike[str] | None = None,
    interval: int = INTERVAL,
    progress: bool = False,
) -> Series:
    """Runs chains and measures observables after every step.

    With a checkpoint, an interrupted run loses at most one interval. To resume it, call
    `run` again with a sampler that has the same settings; the sampler's own first spins
    are then ignored. The resumed chains are the same as uninterrupted ones, bit for
    bit.

    Args:
        sampler: Chains to run.
        steps: Number of measured steps.
        thermalisation: Number of steps before the measurement. They are discarded, and
            the step size adapts in them.
        observables: Observables to measure, by name. For self-learning chains `"delta"`
            is added.
        checkpoint: File to write, and to resume from if it exists.
        interval: Number of steps between two writes of the checkpoint.
        progress: Whether to show a progress bar.

    Returns:
        The series of each observable, shape `(steps, chains, ...)`.

    Raises:
        ValueError: If a number of steps is negative, or the checkpoint belongs to other
            chains.
        FileNotFoundError: If the checkpoint's folder does not exist.
    """
    if min(steps, thermalisation) < 0 or interval < 1:
        raise ValueError(
            "Expected numbers of steps, and an interval of at least 1. Received: "
            f"steps={steps!r}, thermalisation={thermalisation!r}, interval={interval!r}"
        )
    measured = dict(observables)
    if isinstance(sampler, SelfLearning):
        measured["delta"] = lambda chain: chain.delta
    recorder = _Recorder(sampler, measured, thermalisation)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        check_folder(path)
        if path.exists():
            recorder.load(path)
    total = thermalisation + steps
    with progress_bar("steps", progress) as show:
        while recorder.done < total:
            recorder.step()
            show(recorder.done, total)
            if path is not None and recorder.done % interval == 0:
                recorder.save(path)
    if path is not None:
        recorder.save(path)
    return recorder.series(steps)


def read_series(path: str | os.PathLike[str]) -> Series:
    """Reads the series in a checkpoint, shape `(steps, chains, ...)` each.

    Raises:
        ValueError: If the file is not a checkpoint.
    """
    return _with_prefix(_read(path, _SERIES), _SERIES)


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the settings of the chains in a checkpoint: model, sampler and seed.

    Raises:
        ValueError: If the file is not a checkpoint.
    """
    return dict(json.loads(str(_read(path, _DESCRIPTION)[_DESCRIPTION])))


def _read(path: str | os.PathLike[str], prefix: str = "") -> State:
    """Reads the arrays of a checkpoint whose names start with a prefix."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if _DESCRIPTION in arrays:
                return {
                    name: arrays[name] for name in arrays if name.startswith(prefix)
                }
    except (OSError, EOFError, TypeError, ValueError, BadZipFile) as error:
        raise ValueError(f"{os.fspath(path)!r} cannot be read: {error}") from error
    raise ValueError(f"{os.fspath(path)!r} is not a checkpoint of chains.")


class _Recorder:
    """Measured series of a run, and the number of steps so far."""

    def __init__(
        self,
        sampler: Sampler,
        observables: Mapping[str, Observable],
        thermalisation: int,
    ) -> None:
        self.done = 0
        self._sampler, self._observables = sampler, observables
        self._thermalisation = thermalisation
        self._rows: dict[str, list[Floats]] = {name: [] for name in observables}

    def step(self) -> None:
        thermalising = self.done < self._thermalisation
        self._sampler.advance(thermalising)
        self.done += 1
        if not thermalising:
            for name, observable in self._observables.items():
                self._rows[name].append(np.asarray(observable(self._sampler)))

    def series(self, steps: int) -> Series:
        chains = self._sampler.chains
        return {
            name: np.array(rows[:steps]) if rows else np.empty((0, chains))
            for name, rows in self._rows.items()
        }

    def save(self, path: Path) -> None:
        arrays: dict[str, NDArray[Any]] = {
            _DESCRIPTION: np.array(self._description()),
            _STEPS: np.array(self.done),
            **{_STATE + name: value for name, value in self._sampler.state().items()},
            **{_SERIES + name: np.array(rows) for name, rows in self._rows.items()},
        }
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def load(self, path: Path) -> None:
        arrays = _read(path)
        description = str(arrays[_DESCRIPTION])
        if description != self._description():
            raise ValueError(
                f"{str(path)!r} is a checkpoint of other chains. Choose another file, "
                "or use the settings of the checkpoint.\n"
                f"Expected: {self._description()}\nReceived: {description}"
            )
        self.done = int(arrays[_STEPS])
        self._sampler.restore(_with_prefix(arrays, _STATE))
        self._rows = {
            name: list(rows) for name, rows in _with_prefix(arrays, _SERIES).items()
        }

    def _description(self) -> str:
        return json.dumps(
            {
                **self._sampler.describe(),
                **self._sampler.model.to_dict(),
                "thermalisation": self._thermalisation,
                "observables": list(self._observables),
            }
        )


def _with_prefix(arrays: Mapping[str, NDArray[Any]], prefix: str) -> State:
    return {
        name.removeprefix(prefix): arrays[name]
        for name in arrays
        if name.startswith(prefix)
    }
