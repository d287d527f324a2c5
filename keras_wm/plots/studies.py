"""Plots that compare many networks, for experiments and evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import ArrayLike

from keras_wm.plots.style import MARKED, REFERENCE, Curves, draw_lines, figure, styled

# The area under the ROC curve and the ends of its interval, by the detector's name.
Areas = Mapping[str, tuple[float, float, float]]


def plot_outputs(outputs: Mapping[str, ArrayLike]) -> Figure:
    r"""Plots histograms of the sigmoid of the bits' outputs.

    As in Uchida et al. (2017, figure 4): near 1 for a bit that is read correctly with
    a large margin, near 0.5 for a bit that is not embedded.

    Args:
        outputs: \(s_j (x_j \cdot u_j)\) of each bit, shape `(T,)`, by the network's
            name.

    Returns:
        A matplotlib `Figure`.
    """
    with figure(len(outputs), (2.4 * len(outputs), 2.6)) as (drawing, panels):
        for axes, (name, values) in zip(panels, outputs.items(), strict=True):
            sigmoid = 1 / (1 + np.exp(-np.asarray(values, np.float64)))
            axes.hist(sigmoid, np.linspace(0, 1, 21).tolist(), color=MARKED)
            axes.axvline(0.5, color=REFERENCE, lw=1)
            axes.set(title=name, xlim=(0, 1), xlabel=r"$\sigma(s\,x \cdot w)$")
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        panels[0].set_ylabel("bits")
    return drawing


def plot_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Plots test error and training loss over the epochs.

    Args:
        histories: Histories by the network's name: `"test_error"` before training and
            after each epoch, and `"loss"` in each epoch.

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
        right.set(xlabel="epochs", ylabel="training loss, with penalties", yscale="log")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_formatter("{x:g}")
            # The range can hold one power of ten or none, so label minor ticks too.
            axes.yaxis.set_minor_formatter(LogFormatter())
        left.legend()
    return drawing


def plot_weights(histograms: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Plots the distributions of a kernel's weights in several networks.

    Args:
        histograms: Histograms by the network's name: `"counts"` in bins of equal width
            from `"low"` to `"high"`.

    Returns:
        A matplotlib `Figure`.
    """
    with figure(1, (6.4, 3.8)) as (drawing, (axes,)):
        for name, histogram, style in styled(histograms):
            counts = np.asarray(histogram["counts"], np.float64)
            edges = np.linspace(histogram["low"], histogram["high"], len(counts) + 1)
            # Leave gaps at empty bins, whose logarithm is infinite.
            counts[counts == 0] = np.nan
            density = counts / np.nansum(counts) / np.diff(edges)
            centers = (edges[1:] + edges[:-1]) / 2
            axes.plot(centers, density, label=name, **style | {"marker": ""})
        axes.set(xlabel="weight", ylabel="density", yscale="log")
        axes.legend()
    return drawing


def plot_lines(
    curves: Curves, xlabel: str, ylabel: str, log_x: int = 0, log_y: int = 0
) -> Figure:
    """Plots several lines in one panel.

    Args:
        curves: Points (x, y) by the name of the line.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        log_x: Base of a logarithmic x axis; 0 for a linear one.
        log_y: Base of a logarithmic y axis; 0 for a linear one.

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
    """Plots the effect of an attack on the mark and on the network, side by side.

    Args:
        ber: Points (strength, bit error rate) by the mark's name.
        error: Points (strength, test error) by the mark's name.
        strength: Label of the attack's strength.

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
    threshold: float,
    useful_accuracy: float,
) -> Figure:
    """Plots accuracy against evidence for the mark after attacks.

    Args:
        families: For each family, points (evidence, accuracy) from weak to strong
            attacks, by the attack's name. Evidence is -log10 p.
        start: Point of the network before any attack.
        threshold: Evidence above which the mark is found.
        useful_accuracy: Accuracy above which the network is useful.

    Returns:
        A matplotlib `Figure` with one panel for each family.
    """
    columns = min(3, len(families))
    rows = -(-len(families) // columns)
    with figure(columns, (3.6 * columns, 3.2 * rows), rows) as (drawing, panels):
        for axes, (family, curves) in zip(panels, families.items(), strict=False):
            draw_lines(axes, curves)
            axes.plot(*start, marker="*", markersize=12, color=REFERENCE, ls="")
            axes.axvline(threshold, color=REFERENCE, lw=1, ls=":")
            axes.axhline(useful_accuracy, color=REFERENCE, lw=1, ls="--")
            # Evidence ranges over decades, and is near zero without a mark.
            axes.set_xscale("symlog", linthresh=10)
            axes.set(title=family, ylim=(-0.03, 1.03), xlim=(-1, 3 * start[0] + 10))
            axes.legend(fontsize="x-small", loc="best")
        for axes in panels[len(families) :]:
            axes.set_axis_off()
        drawing.supxlabel("evidence, $-\\log_{10} p$")
        drawing.supylabel("accuracy")
    return drawing


def plot_points(
    points: Curves, enlarged: Sequence[str], xlabel: str, ylabel: str
) -> Figure:
    """Plots networks as points: all of them, and some kinds enlarged.

    Args:
        points: Points (x, y) of the networks by the kind's name.
        enlarged: Kinds that are plotted again in a second panel, on their own scale.
        xlabel: Label of the x axes.
        ylabel: Label of the y axes.

    Returns:
        A matplotlib `Figure`.
    """
    with figure(2, (10.4, 3.8)) as (drawing, (left, right)):
        for name, pairs, style in styled(points):
            x, y = np.transpose(pairs)
            style = style | {"ls": "", "alpha": 0.8}
            left.plot(x, y, label=name, **style)
            if name in enlarged:
                right.plot(x, y, **style)
        for axes in (left, right):
            axes.set(xlabel=xlabel, ylabel=ylabel)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        left.legend()
    return drawing


def plot_areas(panels: Mapping[str, Mapping[str, Areas]]) -> Figure:
    """Plots how well detectors distinguish marked from unmarked networks.

    Args:
        panels: Areas under the ROC curve by the panel's title, then by the mark's
            name. The first panel has all detectors of the others.

    Returns:
        A matplotlib `Figure`.
    """
    first = next(iter(panels.values()))
    detectors = list(next(iter(first.values())))
    size = (5.2 * len(panels), 1.2 + 0.22 * len(detectors))
    with figure(len(panels), size) as (drawing, row):
        for axes, (title, marks) in zip(row, panels.items(), strict=True):
            for number, (name, areas, style) in enumerate(styled(marks)):
                shift = 0.5 * ((number + 0.5) / len(marks) - 0.5)
                area, low, high = np.transpose(list(areas.values()))
                axes.errorbar(
                    area,
                    [detectors.index(detector) + shift for detector in areas],
                    xerr=[area - low, high - area],
                    label=name,
                    elinewidth=1,
                    **style | {"ls": ""},
                )
            axes.axvline(0.5, color=REFERENCE, lw=1, ls=":")
            axes.set(xlim=(-0.02, 1.02), ylim=(len(detectors) - 0.5, -0.5))
            axes.set(title=title, xlabel="area under the ROC curve, 95 % interval")
            axes.set_yticks(range(len(detectors)), [])
        row[0].set_yticklabels(detectors)
        row[-1].legend(loc="lower left")
    return drawing
