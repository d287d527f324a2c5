"""What an experiment is: runs to do, and tables and figures to make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_wm.research.experiments.measurement import (
    kernel_figures,
    mark_figures,
    signed_outputs,
)
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Figures, Row
from keras_wm.research.experiments.schemes import Mark
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import ResultTable
from keras_wm.research.experiments.training import Training


@dataclass(frozen=True)
class Run:
    """One run: a line in the records.

    Attributes:
        labels: What tells it from the experiment's other runs, as plain values.
        perform: Does it, and returns its figures.
        network: The network from scratch that it needs, if any.
    """

    labels: dict[str, Any]
    perform: Callable[[NetworkStore], Figures]
    network: Training | None = None


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        name: What to call it.
        title: What it asks.
        runs: Its runs, in the order in which to do them.
        tables: The tables that its records make.
        figures: The figures that its records make, by name.
    """

    name: str
    title: str
    runs: Callable[[Settings], Iterable[Run]]
    tables: Callable[[Sequence[Row]], list[ResultTable]]
    figures: Callable[[Sequence[Row]], dict[str, Figure]] = field(
        default=lambda rows: {}
    )

    def networks(self, settings: Settings) -> list[Training]:
        """The networks from scratch that its runs need, each once."""
        needed = (run.network for run in self.runs(settings))
        return list(dict.fromkeys(network for network in needed if network))


def trained_run(
    labels: dict[str, Any],
    training: Training,
    mark: Mark,
    distribution: bool = False,
) -> Run:
    """A run that trains a network and measures it.

    Args:
        labels: What tells it from the experiment's other runs.
        training: The network.
        mark: What is looked for in it.
        distribution: Whether its weights and outputs are recorded too.
    """

    def perform(store: NetworkStore) -> Figures:
        model, history = store.network(training)
        pictures = store.pictures(training.task)
        figures: Figures = {
            "test_error": pictures.test_error(model),
            **mark_figures(model, mark),
        }
        if history:
            figures["best_test_error"] = min(history["test_error"])
        if distribution:
            figures["history"] = history
            figures |= distribution_figures(model, mark)
        return figures

    return Run(labels, perform, training.first)


def distribution_figures(model: Any, mark: Mark) -> Figures:
    """How a marked layer's weights are distributed, and what each bit reads."""
    kernel = np.asarray(model.get_layer(mark.layers[0]).kernel)
    outputs = [round(float(one), 4) for one in signed_outputs(kernel, mark)]
    return kernel_figures(kernel) | {"outputs": outputs}
