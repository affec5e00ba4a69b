"""Show progress bars on stderr."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import Self


class ProgressBar:
    """A bar with the count, the elapsed and remaining time, and a note; use it as a context manager.

    Args:
        description: The name of the work.
        total: Steps in all; None if that is not known yet.
        shown: Print the bar; a bar that is not shown costs next to nothing.
        done: Steps taken before.
    """

    def __init__(self, description: str, total: int | None, *, shown: bool, done: int = 0) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        self._bars = Progress(*columns, *times, console=Console(stderr=True), disable=not (shown and total != 0))
        self._note = ""
        self._task = self._bars.add_task(description, total=total, completed=done, note="")

    def advance(self, steps: float = 1, note: str | None = None) -> None:
        """Advance by some steps, or a part of one, and replace the note if it is given."""
        self._note = self._note if note is None else note
        self._bars.update(self._task, advance=steps, note=self._note)

    def set(self, done: float, total: int | None = None, note: str | None = None) -> None:
        """Set the steps taken, and the total and the note if they are given."""
        self._note = self._note if note is None else note
        self._bars.update(self._task, completed=done, total=total, note=self._note)

    @property
    def rate(self) -> float:
        """The recent number of steps per second."""
        return self._bars.tasks[0].speed or 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()
