"""The bar that is shown while something takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")


def tracked(items: Sequence[Item], what: str, shown: bool) -> Iterator[Item]:
    """Items one by one, with a bar of how many are done; see `progress_bar`."""
    with progress_bar(what, shown) as show:
        for done, item in enumerate(items):
            show(done, len(items))
            yield item


@contextmanager
def progress_bar(what: str, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where that is a terminal or a notebook.

    Args:
        what: What is being done.
        shown: Whether to show it at all.

    Yields:
        A function to call with how much is done, and how much there is.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn(what),
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
