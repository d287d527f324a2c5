"""Base class of reports, which print as text and as a table in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import ClassVar

from keras_wm.utils.text import printable

# A cell is cut after so many characters: more than a report needs, few enough that a
# hostile name cannot flood a terminal.
_CELL_LENGTH = 10_000


class TextReport:
    """A report that prints as a table.

    Subclasses implement `rows()`. Layer names, file names and error messages can come
    from a stranger's file, so both forms escape what could control a terminal, and
    the HTML form escapes markup.
    """

    # Headers of the columns. A report without headers has names and values.
    _columns: ClassVar[Sequence[str]] = ()
    # Columns that are aligned to the right in text.
    _right_aligned: ClassVar[Sequence[int]] = (0,)

    def rows(self) -> Sequence[Sequence[str]]:
        """Returns the rows of the table, each a sequence of cells."""
        raise NotImplementedError

    def _cells(self) -> list[list[str]]:
        return [[printable(cell, _CELL_LENGTH) for cell in row] for row in self.rows()]

    def __repr__(self) -> str:
        lines = [list(self._columns)] if self._columns else []
        lines += self._cells()
        columns = []
        for index, column in enumerate(zip(*lines, strict=True)):
            justify = str.rjust if index in self._right_aligned else str.ljust
            width = max(map(len, column))
            columns.append([justify(cell, width) for cell in column])
        rows = zip(*columns, strict=True)
        return "\n".join("  ".join(cells).rstrip() for cells in rows)

    def _repr_html_(self) -> str:
        lines = [_html_row(self._columns, len(self._columns))] if self._columns else []
        # Without headers, the first column has the names.
        names = 0 if self._columns else 1
        lines += [_html_row(cells, names) for cells in self._cells()]
        return f"<table>{''.join(lines)}</table>"


def _html_row(cells: Sequence[str], headers: int) -> str:
    tags = ["th"] * headers + ["td"] * (len(cells) - headers)
    return "<tr>{}</tr>".format(
        "".join(
            f"<{tag} style='text-align:left'>{html.escape(cell)}</{tag}>"
            for tag, cell in zip(tags, cells, strict=True)
        )
    )
