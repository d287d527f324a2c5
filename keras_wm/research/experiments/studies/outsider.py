"""The features of networks that the outsider of the study `covertness` compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from keras_wm.research.detectability import STATISTICS
from keras_wm.research.experiments import roc
from keras_wm.research.experiments.run_records import Row
from keras_wm.research.experiments.schemes import SCHEMES, UNMARKED
from keras_wm.research.experiments.tables import having
from keras_wm.research.input_statistics import INPUT_STATISTICS
from keras_wm.utils.arrays import Floats

# Four fifths of 7 networks are still enough for the five folds of `cross_fitted_auc`.
MIN_NETWORKS = 7
LESS_NEIGHBOURS = ", minus neighbours"
CLASSIFIERS = ("all statistics", "sorted weights")
KINDS = (UNMARKED, *SCHEMES)
Area = tuple[float, float, float]


@dataclass(frozen=True)
class Features:
    """The features of networks, a row for each network.

    Attributes:
        statistics: Names of the statistics that were recorded of all networks.
        unmarked: Features of unmarked networks: the statistics, the statistics minus
            those of the neighbours, and the sorted weights.
        marked: Those of networks with each mark.
    """

    statistics: list[str]
    unmarked: Floats
    marked: dict[str, Floats]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """Returns the features of the kinds that have enough networks."""
        statistics = [
            name
            for name in (*STATISTICS, *INPUT_STATISTICS)
            if all(name in row["statistics"] for row in rows)
        ]
        features = {
            kind: _matrix(of_kind, statistics)
            for kind in KINDS
            if len(of_kind := having(rows, scheme=kind)) >= MIN_NETWORKS
        }
        unmarked = features.pop(UNMARKED, np.empty((0, 0)))
        return cls(statistics, unmarked, features if len(unmarked) else {})

    @property
    def names(self) -> list[str]:
        """Names of the features, without the sorted weights, which come last."""
        return [
            *self.statistics,
            *(f"{name}{LESS_NEIGHBOURS}" for name in self.statistics),
        ]

    def classifiers(self) -> list[roc.Fit]:
        """Returns the fits of the classifiers in `CLASSIFIERS`."""
        count = len(self.names)
        columns = range(self.unmarked.shape[1])
        return [roc.discriminant(columns[:count]), roc.discriminant(columns[count:])]

    def areas(self, mark: str) -> dict[str, Area]:
        """Returns the area of each detector of a mark, with its interval.

        For a single feature it is the plain area, which is below 0.5 where the mark
        lowers the feature. For a classifier it is cross-fitted.
        """
        marked, unmarked, count = self.marked[mark], self.unmarked, len(self.names)
        areas = [
            *roc.auc(marked[:, :count], unmarked[:, :count]),
            *(
                roc.cross_fitted_auc(fit, marked, unmarked)
                for fit in self.classifiers()
            ),
        ]
        return {
            name: (area, *roc.auc_interval(area, len(marked), len(unmarked)))
            for name, area in zip((*self.names, *CLASSIFIERS), areas, strict=True)
        }

    def outsiders_area(self, marked: Floats, unmarked: Floats) -> str:
        """Returns the area of the detector that an outsider chooses, on other ones."""
        fits = [roc.best_single(range(len(self.names))), *self.classifiers()]
        area = roc.cross_fitted_auc(roc.best_of(fits), marked, unmarked)
        return area_text((area, *roc.auc_interval(area, len(marked), len(unmarked))))


def _matrix(rows: Sequence[Row], statistics: Sequence[str]) -> Floats:
    own, neighbours = (
        np.array([[row[kind][name] for name in statistics] for row in rows])
        for kind in ("statistics", "neighbours")
    )
    weights = [row["sorted_weights"] for row in rows]
    return np.concatenate([own, own - neighbours, weights], axis=1)


def area_text(area: Area) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*area)
