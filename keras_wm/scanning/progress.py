"""The bar that a scan shows while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress_bar(shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where that is a terminal or a notebook.

    Args:
        shown: Whether to show it at all.

    Yields:
        A function to call with how many files are done, and how many there are.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("scanning"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and (console.is_terminal or console.is_jupyter)),
        # What a caller prints goes where it is sent, not through the bar.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, count: bar.update(task, completed=done, total=count)
