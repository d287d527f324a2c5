"""Progress bars."""

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


def tracked(items: Sequence[Item], label: str, shown: bool) -> Iterator[Item]:
    """Yields items one by one, and shows a bar; see `progress_bar`."""
    with progress_bar(label, shown) as show:
        for done, item in enumerate(items):
            show(done, len(items))
            yield item


@contextmanager
def progress_bar(label: str, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar on standard error, if that is a terminal or a notebook.

    Args:
        label: Text in front of the bar.
        shown: Whether to show the bar.

    Yields:
        A function to call with the number of completed steps and of all steps.
    """
    console = Console(stderr=True)
    if not (shown and (console.is_terminal or console.is_jupyter)):
        yield lambda done, count: None
        return
    bar = Progress(
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # Leaves the caller's standard output and error unchanged.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, count: bar.update(task, completed=done, total=count)
