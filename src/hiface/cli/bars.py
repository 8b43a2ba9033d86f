# SPDX-License-Identifier: Apache-2.0
"""Progress of long work."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(console: Console | None = None) -> Progress:
    """A bar with what is being done, how much of it and the time left; it goes away when it is done.

    Args:
        console: Where to; the error stream if None.
    """
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console or Console(stderr=True, emoji=False), transient=True)
