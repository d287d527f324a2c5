"""Tables of recorded runs, their statistics, and the columns that studies share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from keras_wm.research.experiments.published_results import PublishedResult
from keras_wm.research.experiments.run_records import Row
from keras_wm.research.experiments.schemes import UNMARKED

# Makes the text of a table cell from the recorded rows that the table's row shows.
Cell = Callable[[Sequence[Row]], str]
# For each row of a table, the texts of its first cells and the recorded rows shown.
Groups = list[tuple[list[str], Sequence[Row]]]
# The texts of labels that are not shown as plain strings or numbers.
_LABEL_TEXTS: dict[str, Callable[[Any], str]] = {
    "group": "conv {}".format,
    "rate": lambda rate: f"{rate:g}" if rate else "",
    "share": lambda share: f"{100 * share:g} %",
}


@dataclass(frozen=True)
class ResultTable:
    """A table for a terminal, a notebook or a Markdown file.

    Attributes:
        title: Title of the table.
        columns: Headings of the columns.
        rows: Texts of the cells, one sequence per row.
        notes: Sentences that explain the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def print(self, console: Console) -> None:
        """Prints the table in a terminal."""
        table = Table(
            title=self.title,
            title_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        # In a narrow terminal, names break between words only, numbers anywhere.
        words = " ".join(row[0] for row in self.rows).split()
        width = max(console.width // 3, *map(len, words), 1)
        table.add_column(fill(self.columns[0], width), no_wrap=True)
        for heading in self.columns[1:]:
            table.add_column(heading, justify="right", overflow="fold")
        for name, *numbers in self.rows:
            table.add_row(fill(name, width), *numbers)
        console.print(table)
        for note in self.notes:
            console.print(note)

    def to_markdown(self) -> str:
        """Returns the table as Markdown, which notebooks show too."""
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


def make_table(
    title: str,
    groups: Groups,
    headings: Sequence[str],
    cells: dict[str, Cell],
    notes: Sequence[str] = (),
) -> ResultTable:
    """Returns a table with one row for each group that has recorded rows.

    The headings are those of the first columns, whose texts are in the groups. `cells`
    holds the other columns, by heading.
    """
    columns = cells.values()
    lines = [
        [*texts, *(cell(rows) for cell in columns)] for texts, rows in groups if rows
    ]
    return ResultTable(title, [*headings, *cells], lines, notes)


def having(rows: Iterable[Row], **labels: Any) -> list[Row]:
    """Returns the rows with these labels."""
    return [
        row
        for row in rows
        if all(row.get(name) == value for name, value in labels.items())
    ]


def grouped(rows: Sequence[Row], **labels: Collection[Any] | None) -> Groups:
    """Returns groups of rows with equal labels, for `make_table`.

    Each label is given the values to show, in this order; `None` is all values, in
    order of appearance. Combinations of values that no row has are left out.
    """
    groups: Groups = [([], rows)]
    for name, shown in labels.items():
        groups = [
            ([*texts, _label_text(name, value)], chosen)
            for texts, group in groups
            for value in (values(group, name) if shown is None else shown)
            if (chosen := having(group, **{name: value}))
        ]
    return groups


def _label_text(name: str, value: Any) -> str:
    if name in _LABEL_TEXTS:
        return _LABEL_TEXTS[name](value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def values(rows: Iterable[Row], name: str) -> list[Any]:
    """Returns the distinct values of a label or measurement, in order of appearance."""
    return list(dict.fromkeys(row[name] for row in rows if name in row))


def scientific(value: float) -> str:
    """Formats a number with two digits and a short exponent: `4.8e-4`."""
    digits, _, exponent = format(value, ".1e").partition("e")
    return f"{digits}e{int(exponent)}"


def mean_of(rows: Iterable[Row], name: str, form: str = ".3g") -> str:
    """Formats the mean of a measurement over rows; a dash if no row has it."""
    numbers = [row[name] for row in rows if row.get(name) is not None]
    return format(float(np.mean(numbers)), form) if numbers else "-"


def mean_scientific(rows: Iterable[Row], name: str) -> str:
    """Formats the mean of a measurement in scientific notation."""
    mean = mean_of(rows, name, "")
    return mean if mean == "-" else scientific(float(mean))


def percent(rows: Iterable[Row], name: str) -> str:
    """Formats the mean of a share, in percent."""
    return mean_of([{name: 100 * row[name]} for row in rows], name, ".2f")


def worst_of(rows: Iterable[Row], name: str, form: str = ".3g") -> str:
    """Formats the largest value of a measurement over rows; a dash if no row has it."""
    numbers = [row[name] for row in rows if row.get(name) is not None]
    return format(max(numbers), form) if numbers else "-"


def describe_seeds(rows: Sequence[Row]) -> str:
    """Returns a sentence with the number of networks that the rows are from."""
    count = len({row["seed"] for row in rows})
    return "One network of each kind." if count == 1 else f"Means of {count} networks."


def student_interval(differences: ArrayLike) -> tuple[float, float]:
    """Returns the mean of paired differences and half its 95 % interval (Student's t).

    The half width is NaN for fewer than two differences.
    """
    from scipy import stats

    array = np.asarray(differences, np.float64)
    if len(array) < 2:
        return float(array.mean()), float("nan")
    width = stats.t.ppf(0.975, len(array) - 1) * stats.sem(array)
    return float(array.mean()), float(width)


def paired_difference(rows: Sequence[Row], base: Sequence[Row]) -> str:
    """Formats the mean difference of test errors with its 95 % interval.

    Rows are paired by seed. The difference is rows minus base, in percentage points; a
    dash if no seed is in both.
    """
    by_seed = {row["seed"]: row["test_error"] for row in base}
    differences = [
        100 * (row["test_error"] - by_seed[row["seed"]])
        for row in rows
        if row["seed"] in by_seed
    ]
    return _with_interval(*student_interval(differences)) if differences else "-"


def _with_interval(mean: float, half: float) -> str:
    """Formats a difference and half its interval, which is NaN if unknown."""
    return f"{mean:+z.2f}" if np.isnan(half) else f"{mean:+z.2f} ± {half:.2f}"


def unpaired_difference(rows: Sequence[Row], base: Sequence[Row]) -> str:
    """Formats the difference of mean test errors with its 95 % interval.

    For networks that share no seed. The difference is rows minus base, in percentage
    points, and the interval is that of Welch's t-test; a dash if either is empty.
    """
    from scipy import stats

    samples = [[100 * row["test_error"] for row in kind] for kind in (rows, base)]
    if not all(samples):
        return "-"
    mean = float(np.mean(samples[0]) - np.mean(samples[1]))
    if min(map(len, samples)) < 2:
        return _with_interval(mean, float("nan"))
    # Not scipy.stats.ttest_ind, which warns if all samples are equal.
    errors = np.array([np.var(sample, ddof=1) / len(sample) for sample in samples])
    if not errors.any():
        return _with_interval(mean, 0.0)
    weights = [len(sample) - 1 for sample in samples]
    freedom = errors.sum() ** 2 / np.sum(errors**2 / weights)
    return _with_interval(mean, stats.t.ppf(0.975, freedom) * np.sqrt(errors.sum()))


COUNT: dict[str, Cell] = {"networks": lambda rows: str(len(rows))}
COST: dict[str, Cell] = {
    "error, %": lambda rows: percent(rows, "test_error"),
    "BER": lambda rows: worst_of(rows, "ber", ".2g"),
    "E_R": lambda rows: mean_scientific(rows, "embedding_loss"),
    "log10 p": lambda rows: worst_of(rows, "log10_p", "z.0f"),
}

LEGEND = (
    "networks: number of networks, where it differs between rows. error: mean test "
    "error after the last epoch, in percent. BER (bit error rate), E_R (embedding loss "
    "per bit) and p (p-value) are of the mark in its layer; over several networks, BER "
    "and p are the largest and E_R is the mean. minus unmarked: percentage points of "
    "test error above the unmarked network with the same seed, with the 95 % interval. "
    "papers: error in % / E_R / BER in the papers."
)


def published_column(
    results: Mapping[Any, PublishedResult], *labels: str
) -> dict[str, Cell]:
    """Returns a column with the papers' test error in percent, E_R and BER.

    The results are given by the values of the labels. Unless `"scheme"` is one of the
    labels, they are those of the mark `"random"`.
    """

    def text(rows: Sequence[Row]) -> str:
        if "scheme" not in labels and rows[0]["scheme"] != "random":
            return ""
        result = results.get(itemgetter(*labels)(rows[0]))
        if result is None:
            return ""
        formats = ("{:.2f}".format, scientific, "{:.2g}".format)
        return "/".join(
            "-" if value is None else form(value)
            for value, form in zip(result, formats, strict=True)
        )

    return {"papers": text}


def minus_unmarked(
    rows: Sequence[Row],
    difference: Callable[[Sequence[Row], Sequence[Row]], str] = paired_difference,
) -> dict[str, Cell]:
    """Returns a column with the test error minus that of the unmarked networks.

    If the experiment has several cases, those are the networks of the same case.
    """

    def text(kind: Sequence[Row]) -> str:
        scheme, case = kind[0]["scheme"], kind[0].get("case")
        if scheme == UNMARKED:
            return ""
        return difference(kind, having(rows, scheme=UNMARKED, case=case))

    return {"minus unmarked": text}
