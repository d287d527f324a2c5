"""Plots in one style, from plain arrays."""

from keras_wm.plots.scores import plot_scores, plot_training
from keras_wm.plots.studies import (
    plot_areas,
    plot_attack,
    plot_curves,
    plot_evidence,
    plot_lines,
    plot_outputs,
    plot_points,
    plot_weights,
)
from keras_wm.plots.style import MARKED, REFERENCE, UNMARKED, figure

__all__ = [
    "MARKED",
    "REFERENCE",
    "UNMARKED",
    "figure",
    "plot_areas",
    "plot_attack",
    "plot_curves",
    "plot_evidence",
    "plot_lines",
    "plot_outputs",
    "plot_points",
    "plot_scores",
    "plot_training",
    "plot_weights",
]
