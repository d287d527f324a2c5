"""Plots of one mark: its scores in a kernel, and its growth during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from keras_wm.plots.style import MARKED, REFERENCE, UNMARKED, figure

_STYLES: Any = ({"color": MARKED, "ls": "-"}, {"color": UNMARKED, "ls": "--"})


def plot_scores(scores: Mapping[str, ArrayLike], title: str = "") -> Figure:
    """Draws the scores of a message in one or two kernels, beside N(0, 1).

    N(0, 1) is the distribution of the scores in an unmarked kernel.

    Args:
        scores: The scores z, shape `(T,)`, by the name that the legend shows.
        title: Title of the figure.

    Returns:
        A matplotlib `Figure`.
    """
    with figure(1, (6.4, 3.6)) as (drawing, (axes,)):
        _score_histogram(axes, scores)
        axes.set_title(title)
    return drawing


def plot_training(
    ber: Sequence[float],
    accuracy: Mapping[str, Sequence[float]],
    scores: Mapping[str, ArrayLike],
) -> Figure:
    """Plots the bit error rate and the test accuracy, and the scores at the end.

    Args:
        ber: Bit error rate before training and after each epoch.
        accuracy: Test accuracy at the same times, by the network's name.
        scores: Scores z in the published file, shape `(T,)`, by the network's name.

    Returns:
        A matplotlib `Figure`.
    """
    epochs = np.arange(len(ber))
    with figure(2, (10.4, 3.8)) as (drawing, (left, right)):
        left.set_title("During training")
        for (name, values), style in zip(accuracy.items(), _STYLES, strict=False):
            left.plot(epochs, values, label=f"test accuracy, {name}", **style)
        left.plot(epochs, ber, color=REFERENCE, ls=":", label="bit error rate")
        left.set(xlabel="epochs", ylabel="share", ylim=(-0.02, 1.02))
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.legend(loc="center right")
        right.set_title("In the published file")
        _score_histogram(right, scores)
    return drawing


def _score_histogram(axes: Axes, scores: Mapping[str, ArrayLike]) -> None:
    arrays = {name: np.asarray(z) for name, z in scores.items() if np.size(z)}
    reach = max([4.0, *(float(np.abs(z).max()) for z in arrays.values())])
    edges = np.linspace(-reach - 0.5, reach + 0.5, 50).tolist()
    for (name, z), style in zip(arrays.items(), _STYLES, strict=False):
        axes.hist(z, edges, density=True, alpha=0.75, color=style["color"], label=name)
    grid = np.linspace(edges[0], edges[-1], 300)
    density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    axes.plot(grid, density, color=REFERENCE, lw=1.2, ls="--", label="N(0, 1)")
    axes.axvline(0, color=REFERENCE, lw=1)
    axes.set(xlabel="score z of a bit (correct above 0)", ylabel="density")
    axes.legend()
