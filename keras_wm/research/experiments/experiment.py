"""Experiments: runs to do, and the tables and plots that show their records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_wm.research.experiments.measurement import (
    measure_kernel,
    measure_network,
    signed_outputs,
)
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Labels, Measurements, Row
from keras_wm.research.experiments.schemes import Mark
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import ResultTable
from keras_wm.research.experiments.training import Training, from_scratch, mark_to_test


@dataclass(frozen=True)
class Run:
    """One run of an experiment, which becomes one line of the records.

    Attributes:
        labels: Plain JSON values that identify the run within its experiment. The
            records and other processes find the run by them.
        perform: Function that does the run and returns its measurements.
        network: The network trained from scratch that the run needs, if any.
    """

    labels: Labels
    perform: Callable[[NetworkStore], Measurements]
    network: Training | None = None


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: Name on the command line and in the records.
        title: The question that it answers.
        runs: Function that returns the runs, in the order in which to do them.
        tables: Function that makes tables of the recorded rows.
        figures: Function that makes plots of the recorded rows, by name.
    """

    name: str
    title: str
    runs: Callable[[Settings], Iterable[Run]]
    tables: Callable[[Sequence[Row]], list[ResultTable]]
    figures: Callable[[Sequence[Row]], dict[str, Figure]] = lambda rows: {}

    def run_with(self, settings: Settings, labels: Labels) -> Run:
        """Returns the run with these labels; `ValueError` if there is none."""
        for run in self.runs(settings):
            if run.labels == labels:
                return run
        raise ValueError(
            f"Expected the labels of a run of {self.name!r}. Received: {labels}"
        )


def network_run(
    labels: Labels,
    network: Training,
    measure: Callable[..., Measurements],
    **options: Any,
) -> Run:
    """Returns a run that measures a network that is trained from scratch.

    `measure` is called with the network, the pictures that it classifies and `options`.
    """

    def perform(store: NetworkStore) -> Measurements:
        model, _ = store.network(network)
        return measure(model, store.pictures(network.task), **options)

    return Run(labels, perform, network)


def trained_run(
    labels: Labels, training: Training, mark: Mark, distribution: bool = False
) -> Run:
    """Returns a run that trains a network and tests it for a mark.

    With `distribution`, its weights and outputs are recorded too.
    """

    def perform(store: NetworkStore) -> Measurements:
        model, history = store.network(training)
        pictures = store.pictures(training.task)
        measured = measure_network(model, pictures, mark)
        if history:
            measured["best_test_error"] = min(history["test_error"])
        if distribution:
            kernel = np.asarray(model.get_layer(mark.layers[0]).kernel)
            outputs = [
                round(float(bit), 4) for bit in signed_outputs(kernel, mark.key())
            ]
            measured |= {"history": history, **measure_kernel(kernel)}
            measured["outputs"] = outputs
        return measured

    return Run(labels, perform, training.root)


def scratch_run(
    settings: Settings, labels: Labels, distribution: bool = False, **options: Any
) -> Run:
    """Returns a run that trains a network from scratch and measures it.

    The labels hold its `"scheme"` and `"seed"`. The options are those of
    `mark_to_test`.
    """
    scheme, seed = labels["scheme"], labels["seed"]
    training = from_scratch(settings, scheme, seed, **options)
    mark = mark_to_test(settings, scheme, seed, **options)
    return trained_run(labels, training, mark, distribution)
