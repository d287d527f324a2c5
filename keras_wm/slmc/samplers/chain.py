"""Running chains: thermalisation, measurement, and going on after an interruption."""

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

# What is measured in every chain, shape `(chains, ...)`.
Observable = Callable[[Sampler], Floats]
Series = dict[str, Floats]

INTERVAL = 100
_DESCRIPTION, _STEPS = "description", "steps"
_SERIES, _STATE = "series/", "state/"

OBSERVABLES: dict[str, Observable] = {
    "m2": lambda one: squared_magnetisation(one.spins, one.model.lattice),
    "ms2": lambda one: squared_staggered_magnetisation(one.spins, one.model.lattice),
    "energy": lambda one: one.electrons.energy,
    "density": lambda one: one.electrons.density,
    "log_weight": lambda one: one.electrons.log_weight,
    "acceptance": lambda one: one.accepted,
}
# What effective models learn from, with the log weight.
SPINS: dict[str, Observable] = {"spins": lambda one: one.spins}


def run(
    sampler: Sampler,
    steps: int,
    thermalisation: int = 0,
    observables: Mapping[str, Observable] = OBSERVABLES,
    checkpoint: str | os.PathLike[str] | None = None,
    interval: int = INTERVAL,
    progress: bool = False,
) -> Series:
    """Runs chains and measures after every step.

    With a checkpoint, a run that was stopped loses at most one interval, and goes on to
    the same chains, bit for bit: call it again with a sampler that was made alike,
    whose own first spins count for nothing then.

    Args:
        sampler: The chains.
        steps: How many steps are measured.
        thermalisation: How many are made before, in which the step size adapts.
        observables: What is measured, by name; of self-learning chains `"delta"` too.
        checkpoint: A file to write and go on from.
        interval: After how many steps it is written.
        progress: Whether a bar is shown.

    Returns:
        A series by each name, shape `(steps, chains, ...)`.

    Raises:
        ValueError: If a number is negative, or the checkpoint is of other chains.
        FileNotFoundError: If the checkpoint's folder does not exist.
    """
    if min(steps, thermalisation) < 0 or interval < 1:
        raise ValueError(
            "Expected numbers of steps, and an interval of one or more. Received: "
            f"steps={steps!r}, thermalisation={thermalisation!r}, interval={interval!r}"
        )
    measured = dict(observables)
    if isinstance(sampler, SelfLearning):
        measured["delta"] = lambda one: one.delta  # type: ignore[attr-defined]
    log = _Log(sampler, measured, thermalisation)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        check_folder(path)
        if path.exists():
            log.load(path)
    total = thermalisation + steps
    with progress_bar("steps", progress) as show:
        while log.done < total:
            log.step()
            show(log.done, total)
            if path is not None and log.done % interval == 0:
                log.save(path)
    if path is not None:
        log.save(path)
    return log.series(steps)


def read_series(path: str | os.PathLike[str]) -> Series:
    """The series in a checkpoint, shape `(steps, chains, ...)` each.

    Raises:
        ValueError: If the file is none.
    """
    return _with_prefix(_read(path, _SERIES), _SERIES)


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the chains of a checkpoint are: model, sampler, seed.

    Raises:
        ValueError: If the file is none.
    """
    return dict(json.loads(str(_read(path, _DESCRIPTION)[_DESCRIPTION])))


def _read(path: str | os.PathLike[str], prefix: str = "") -> State:
    """The arrays of a checkpoint whose names begin so, none of which is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if _DESCRIPTION in arrays:
                return {
                    name: arrays[name] for name in arrays if name.startswith(prefix)
                }
    except (OSError, EOFError, TypeError, ValueError, BadZipFile) as error:
        raise ValueError(f"{os.fspath(path)!r} cannot be read: {error}") from error
    raise ValueError(f"{os.fspath(path)!r} is no checkpoint of chains.")


class _Log:
    """How far chains have come, and what was measured."""

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
            **{_STATE + name: one for name, one in self._sampler.state().items()},
            **{_SERIES + name: np.array(one) for name, one in self._rows.items()},
        }
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def load(self, path: Path) -> None:
        arrays = _read(path)
        found = str(arrays[_DESCRIPTION])
        if found != self._description():
            raise ValueError(
                f"{str(path)!r} is a checkpoint of other chains. Choose another file, "
                "or go on with the settings that it was made with.\n"
                f"Expected: {self._description()}\nReceived: {found}"
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
