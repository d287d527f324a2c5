"""The columns that the tables of several experiments share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keras_wm.research.experiments.published_results import (
    NOT_REPORTED,
    PublishedResult,
)
from keras_wm.research.experiments.run_records import Row
from keras_wm.research.experiments.tables import (
    Cell,
    mean_scientific,
    percent,
    scientific,
    worst_of,
)

COUNT: dict[str, Cell] = {"n": lambda rows: str(len(rows))}
COST: dict[str, Cell] = {
    "error": lambda rows: percent(rows, "test_error"),
    "BER": lambda rows: worst_of(rows, "ber", ".2g"),
    "E_R": lambda rows: mean_scientific(rows, "embedding_loss"),
    "log p": lambda rows: worst_of(rows, "log10_p", "z.0f"),
}


LEGEND = (
    "n: how many networks, where not all lines have as many. Error: in percent of the "
    "test set, after the last epoch. BER, E_R (mean per bit) and log10 p: of the mark "
    "in its layer; of several networks the largest BER and p. - unmarked: points of "
    "error more than the unmarked network of the same seed, with the 95 % interval. "
    "Papers: their error/E_R/BER."
)


def printed(of: Callable[[Row], PublishedResult | None]) -> dict[str, Cell]:
    """A column with what the papers print: test error in percent, E_R and BER.

    Args:
        of: Finds it for a row, if they print it.
    """

    def text(rows: Sequence[Row]) -> str:
        cell = of(rows[0]) or NOT_REPORTED
        found: tuple[tuple[float | None, Callable[[float], str]], ...] = (
            (cell.test_error, "{:.2f}".format),
            (cell.embedding_loss, scientific),
            (cell.ber, "{:.2g}".format),
        )
        parts = ["-" if value is None else shown(value) for value, shown in found]
        return "" if cell == NOT_REPORTED else "/".join(parts)

    return {"papers": text}
