"""Tables of what runs gave, and the statistics in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from keras_wm.research.experiments.run_records import Row


@dataclass(frozen=True)
class ResultTable:
    """A table that a terminal, a notebook and a file can show.

    Attributes:
        title: What it shows.
        columns: The heads of its columns.
        rows: As many texts each.
        notes: What a reader has to know, a sentence each.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def print(self, console: Console) -> None:
        """Shows it in a terminal."""
        table = Table(
            title=self.title,
            title_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        # Where it is narrow, names are folded between words alone, figures anywhere.
        words = " ".join(row[0] for row in self.rows).split()
        width = max(console.width // 3, *map(len, words), 1)
        table.add_column(fill(self.columns[0], width), no_wrap=True)
        for head in self.columns[1:]:
            table.add_column(head, justify="right", overflow="fold")
        for name, *figures in self.rows:
            table.add_row(fill(name, width), *figures)
        console.print(table)
        for note in self.notes:
            console.print(note)

    def to_markdown(self) -> str:
        """It in Markdown, which is what a notebook shows too."""
        lines = [
            f"**{self.title}**",
            "",
            _line(self.columns),
            _line(["---", *["---:"] * (len(self.columns) - 1)]),
            *map(_line, self.rows),
            "",
            *self.notes,
        ]
        return "\n".join(lines) + "\n"

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(0x5C) + '|') for cell in cells)} |"


def having(rows: Iterable[Row], **labels: Any) -> list[Row]:
    """The rows that have these labels."""
    return [
        row
        for row in rows
        if all(row.get(name) == value for name, value in labels.items())
    ]


def values(rows: Iterable[Row], name: str) -> list[Any]:
    """The values in order of appearance that a label or figure takes, each once."""
    return list(dict.fromkeys(row[name] for row in rows if name in row))


def scientific(value: float) -> str:
    """A number with two digits and no zeros in its exponent: `4.8e-4`."""
    digits, _, exponent = format(value, ".1e").partition("e")
    return f"{digits}e{int(exponent)}"


def mean_of(rows: Iterable[Row], name: str, form: str = ".3g") -> str:
    """The mean of a figure over rows, and a dash where there is none."""
    numbers = [row[name] for row in rows if row.get(name) is not None]
    return format(float(np.mean(numbers)), form) if numbers else "-"


def mean_scientific(rows: Iterable[Row], name: str) -> str:
    """The mean of a figure that spans decades."""
    mean = mean_of(rows, name, "")
    return mean if mean == "-" else scientific(float(mean))


def percent(rows: Iterable[Row], name: str) -> str:
    """The mean of a share, in percent."""
    return mean_of([{name: 100 * row[name]} for row in rows], name, ".2f")


def worst_of(rows: Iterable[Row], name: str, form: str = ".3g") -> str:
    """The largest of a figure over rows, and a dash where there is none."""
    numbers = [row[name] for row in rows if row.get(name) is not None]
    return format(max(numbers), form) if numbers else "-"


def seeds_of(rows: Sequence[Row]) -> str:
    """A sentence that says of how many networks the figures are."""
    count = len({row["seed"] for row in rows})
    return "One network of each kind." if count == 1 else f"Means of {count} networks."


def interval(differences: ArrayLike) -> tuple[float, float]:
    """The mean of paired differences, and half its 95 % interval (Student's t).

    Returns:
        Mean and half width; the latter is NaN for fewer than two differences.
    """
    from scipy import stats

    array = np.asarray(differences, np.float64)
    if len(array) < 2:
        return float(array.mean()), float("nan")
    width = stats.t.ppf(0.975, len(array) - 1) * stats.sem(array)
    return float(array.mean()), float(width)


def paired_difference(
    rows: Sequence[Row], base: Sequence[Row], name: str = "test_error"
) -> str:
    """The mean of rows minus base by seed, in percentage points, with its interval."""
    by_seed = {row["seed"]: row[name] for row in base}
    differences = [
        100 * (row[name] - by_seed[row["seed"]])
        for row in rows
        if row["seed"] in by_seed
    ]
    if not differences:
        return "-"
    return _with_interval(*interval(differences))


def _with_interval(mean: float, half: float) -> str:
    """A difference and half its interval, where that is known."""
    return f"{mean:+z.2f}" if np.isnan(half) else f"{mean:+z.2f} ± {half:.2f}"


def difference(
    rows: Sequence[Row], base: Sequence[Row], name: str = "test_error"
) -> str:
    """The mean of rows minus that of base, in percentage points, with its interval.

    For networks that share no seed: half the 95 % interval is Welch's.
    """
    from scipy import stats

    samples = [[100 * row[name] for row in one] for one in (rows, base)]
    if not all(samples):
        return "-"
    mean = float(np.mean(samples[0]) - np.mean(samples[1]))
    if min(map(len, samples)) < 2:
        return _with_interval(mean, float("nan"))
    # By hand, for SciPy's test warns of samples that are all the same.
    errors = np.array([np.var(one, ddof=1) / len(one) for one in samples])
    if not errors.any():
        return _with_interval(mean, 0.0)
    freedom = errors.sum() ** 2 / np.sum(errors**2 / [len(one) - 1 for one in samples])
    return _with_interval(mean, stats.t.ppf(0.975, freedom) * np.sqrt(errors.sum()))


Cell = Callable[[Sequence[Row]], str]


def table(
    title: str,
    groups: Iterable[tuple[Sequence[str], Sequence[Row]]],
    heads: Sequence[str],
    cells: dict[str, Cell],
    notes: Sequence[str] = (),
) -> ResultTable:
    """A table with a line for each group of rows.

    Args:
        title: What it shows.
        groups: The first texts of each line, and the rows that it is about; lines
            without rows are left out.
        heads: The heads of the first columns.
        cells: The other columns: how their texts come from the rows.
        notes: As in `ResultTable`.
    """
    lines = [
        [*texts, *(cell(rows) for cell in cells.values())]
        for texts, rows in groups
        if rows
    ]
    return ResultTable(title, [*heads, *cells], lines, notes)
