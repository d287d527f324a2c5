"""Figures of many networks: what experiments and evaluations compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import ArrayLike

from keras_wm.plots.style import MARKED, REFERENCE, Curves, draw_lines, figure, styled

Areas = Mapping[str, tuple[float, float, float]]


def plot_outputs(outputs: Mapping[str, ArrayLike]) -> Figure:
    r"""What networks read of each bit: \(\sigma(s_j y_j)\), 1 where it is sure.

    As in Uchida et al. (2017, figure 4), where every bit is 1.

    Args:
        outputs: \(s_j y_j\) of the bits, shape `(T,)`, by the network's name.

    Returns:
        A matplotlib `Figure`.
    """
    with figure(len(outputs), (2.4 * len(outputs), 2.6)) as (drawing, every):
        for axes, (name, values) in zip(every, outputs.items(), strict=True):
            right = 1 / (1 + np.exp(-np.asarray(values, np.float64)))
            axes.hist(right, np.linspace(0, 1, 21).tolist(), color=MARKED)
            axes.axvline(0.5, color=REFERENCE, lw=1)
            axes.set(title=name, xlim=(0, 1), xlabel=r"$\sigma(s\,x \cdot w)$")
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        every[0].set_ylabel("bits")
    return drawing


def plot_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Test error and training loss over the epochs.

    Args:
        histories: By the network's name, its `"test_error"` before training and
            after each epoch, and its `"loss"` in each epoch.

    Returns:
        A matplotlib `Figure`.
    """
    with figure(2, (10.4, 3.8)) as (drawing, (left, right)):
        for name, history, style in styled(histories):
            errors = 100 * np.asarray(history["test_error"])
            left.plot(np.arange(1, len(errors)), errors[1:], label=name, **style)
            loss = history["loss"]
            right.plot(np.arange(1, len(loss) + 1), loss, label=name, **style)
        left.set(xlabel="epochs", ylabel="test error, %", yscale="log")
        right.set(xlabel="epochs", ylabel="training loss, penalties included")
        right.set_yscale("log")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_formatter("{x:g}")
            # Where there is no power of ten, or one.
            axes.yaxis.set_minor_formatter(LogFormatter())
        left.legend()
    return drawing


def plot_weights(histograms: Mapping[str, Mapping[str, Any]]) -> Figure:
    """How the weights of a kernel are distributed, in several networks.

    Args:
        histograms: By the network's name, `"counts"` in bins of equal width from
            `"low"` to `"high"`.

    Returns:
        A matplotlib `Figure`.
    """
    with figure(1, (6.4, 3.8)) as (drawing, (axes,)):
        for name, one, style in styled(histograms):
            edges = np.linspace(one["low"], one["high"], len(one["counts"]) + 1)
            counts = np.asarray(one["counts"], np.float64)
            # Where there is no weight, a logarithm has nothing to draw.
            counts[counts == 0] = np.nan
            density = counts / np.nansum(counts) / np.diff(edges)
            style = style | {"marker": ""}
            axes.plot((edges[1:] + edges[:-1]) / 2, density, label=name, **style)
        axes.set(xlabel="weight", ylabel="density", yscale="log")
        axes.legend()
    return drawing


def plot_lines(
    curves: Curves, xlabel: str, ylabel: str, log_x: int = 0, log_y: int = 0
) -> Figure:
    """One figure over another, in several networks.

    Args:
        curves: Points (x, y) by the network's name.
        xlabel: What x is.
        ylabel: What y is.
        log_x: The base of a logarithmic scale of x; 0 for none.
        log_y: That of y.

    Returns:
        A matplotlib `Figure`.
    """
    with figure(1, (6.4, 3.8)) as (drawing, (axes,)):
        draw_lines(axes, curves)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if log_x:
            axes.set_xscale("log", base=log_x)
            axes.xaxis.set_major_formatter("{x:g}")
        if log_y:
            axes.set_yscale("log", base=log_y)
        axes.legend()
    return drawing


def plot_attack(ber: Curves, error: Curves, strength: str) -> Figure:
    """What an attack does to the mark, beside what it does to the network.

    Args:
        ber: Points (strength, bit error rate) by the mark's name.
        error: Points (strength, test error) by the mark's name.
        strength: What the strength is.

    Returns:
        A matplotlib `Figure`.
    """
    with figure(2, (10.4, 3.8)) as (drawing, (left, right)):
        draw_lines(left, ber)
        left.axhline(0.5, color=REFERENCE, lw=1, ls=":")
        left.set(xlabel=strength, ylabel="bit error rate", ylim=(-0.02, 0.55))
        draw_lines(right, error)
        right.set(xlabel=strength, ylabel="test error", ylim=(-0.02, 1.02))
        left.legend()
    return drawing


def plot_evidence(
    families: Mapping[str, Curves],
    start: tuple[float, float],
    found: float,
    worth: float,
) -> Figure:
    """What attacks leave: the network's accuracy against the evidence for its mark.

    Args:
        families: Points (evidence, accuracy) from weak attacks to strong ones, by the
            attack's name, by family. Evidence is -log10 p.
        start: The point of the network that was not attacked.
        found: The evidence from which on the mark is found.
        worth: The accuracy from which on the network is worth having.

    Returns:
        A matplotlib `Figure`, a panel a family.
    """
    columns = min(3, len(families))
    rows = -(-len(families) // columns)
    with figure(columns, (3.6 * columns, 3.2 * rows), rows) as (drawing, panels):
        for axes, (family, curves) in zip(panels, families.items(), strict=False):
            draw_lines(axes, curves)
            axes.plot(*start, marker="*", markersize=12, color=REFERENCE, ls="")
            axes.axvline(found, color=REFERENCE, lw=1, ls=":")
            axes.axhline(worth, color=REFERENCE, lw=1, ls="--")
            # What is found for sure may have ten times or a thousand times as much.
            axes.set_xscale("symlog", linthresh=10)
            axes.set(title=family, ylim=(-0.03, 1.03), xlim=(-1, 3 * start[0] + 10))
            axes.legend(fontsize="x-small", loc="best")
        for axes in panels[len(families) :]:
            axes.set_axis_off()
        drawing.supxlabel("evidence, $-\\log_{10} p$")
        drawing.supylabel("accuracy")
    return drawing


def plot_points(
    points: Curves, alike: Sequence[str], xlabel: str, ylabel: str
) -> Figure:
    """Networks as points: all of them, and those closer that look alike.

    Args:
        points: (x, y) of each network by the kind's name.
        alike: The kinds that are drawn again, to a scale of their own.
        xlabel: What x is.
        ylabel: What y is.

    Returns:
        A matplotlib `Figure`.
    """
    with figure(2, (10.4, 3.8)) as (drawing, (left, right)):
        for name, pairs, style in styled(points):
            x, y = np.transpose(pairs)
            style = style | {"ls": "", "alpha": 0.8}
            left.plot(x, y, label=name, **style)
            if name in alike:
                right.plot(x, y, **style)
        for axes in (left, right):
            axes.set(xlabel=xlabel, ylabel=ylabel)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        left.legend()
    return drawing


def plot_areas(panels: Mapping[str, Mapping[str, Areas]]) -> Figure:
    """How well detectors tell marked networks from unmarked ones.

    Args:
        panels: By a panel's title, the mark's name and the detector's: the area under
            the ROC curve and the ends of its interval. The first panel has all the
            detectors that the others have.

    Returns:
        A matplotlib `Figure`.
    """
    first = next(iter(panels.values()))
    detectors = list(next(iter(first.values())))
    size = (5.2 * len(panels), 1.2 + 0.22 * len(detectors))
    with figure(len(panels), size) as (drawing, every):
        for axes, (title, marks) in zip(every, panels.items(), strict=True):
            for number, (name, areas, style) in enumerate(styled(marks)):
                shift = 0.5 * ((number + 0.5) / len(marks) - 0.5)
                area, low, high = np.transpose(list(areas.values()))
                axes.errorbar(
                    area,
                    [detectors.index(one) + shift for one in areas],
                    xerr=[area - low, high - area],
                    label=name,
                    elinewidth=1,
                    **style | {"ls": ""},
                )
            axes.axvline(0.5, color=REFERENCE, lw=1, ls=":")
            axes.set(xlim=(-0.02, 1.02), ylim=(len(detectors) - 0.5, -0.5))
            axes.set(title=title, xlabel="area under the ROC curve, 95 % interval")
            axes.set_yticks(range(len(detectors)), [])
        every[0].set_yticklabels(detectors)
        every[-1].legend(loc="lower left")
    return drawing
