"""What a user sees of a run: a bar over the stages, what the stage at work says, a summary table.

On a terminal the bars move; elsewhere (a job's log, CI) each stage gets a plain line. Stages
tell their progress through the logger ``llumi.<stage>``, in numbers and names only.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipelines.manifest import Manifest

Status = Literal["made", "kept", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What became of one stage."""

    stage: str
    status: Status
    reason: str = ""
    manifest: Manifest | None = None
    seconds: float = 0.0
    """Wall time of this call."""


class Display:
    """Shows the stages of one run as they go."""

    def __init__(self, console: Console, total: int):
        self.console = console
        self.moving = console.is_terminal
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bars = Progress(*columns, TextColumn("{task.fields[news]}"), TimeElapsedColumn(), console=console)
        self.all: TaskID = self.bars.add_task("all stages", total=total, news="")
        self.current: TaskID | None = None

    def begin(self, stage: str) -> None:
        """A stage starts to work."""
        if self.moving:
            self.current = self.bars.add_task(stage, total=None, news="")
        else:
            self.console.print(f"{stage} ...", highlight=False)

    def news(self, record: logging.LogRecord) -> None:
        """A stage says something; ``extra={"done": 3, "total": 10}`` moves its bar, a warning stays on the screen."""
        if not self.moving or record.levelno >= logging.WARNING:
            self.console.print(f"  {record.getMessage()}", highlight=False, markup=False, soft_wrap=True)
        elif self.current is not None:
            done, total = getattr(record, "done", None), getattr(record, "total", None)
            self.bars.update(self.current, news=record.getMessage(), completed=done, total=total)

    def end(self, outcome: Outcome) -> None:
        """A stage is through."""
        self.bars.advance(self.all)
        if self.current is not None:
            self.bars.remove_task(self.current)
            self.current = None
        if outcome.status == "made":
            self.console.print(f"{outcome.stage}: made in {outcome.seconds:.1f} s", highlight=False)


@contextmanager
def showing(console: Console, total: int) -> Iterator[Display]:
    """A display that is up, and hears what stages log, while the block runs."""
    display = Display(console, total)
    handler = News(display)
    logger = logging.getLogger("llumi")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if display.moving:
        display.bars.start()
    try:
        yield display
    finally:
        if display.moving:
            display.bars.stop()
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class News(logging.Handler):
    """Hands the records of ``llumi.*`` to the display."""

    def __init__(self, display: Display):
        super().__init__(logging.INFO)
        self.display = display

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        self.display.news(record)


def summary(outcomes: Sequence[Outcome]) -> Table:
    """The table at the end: each stage, what became of it, its rows and seconds."""
    shown = Table(title=None)
    for name in ("stage", "", "rows kept", "dropped", "seconds"):
        shown.add_column(name, justify="right" if name in {"rows kept", "dropped", "seconds"} else "left")
    for outcome in outcomes:
        rows = outcome.manifest.rows if outcome.manifest else {}
        kept = "\n".join(f"{kind} {count.kept:,}" for kind, count in rows.items())
        dropped = "\n".join(f"{count.read - count.kept:,}" for count in rows.values())
        fate = f"{outcome.status}: {outcome.reason}" if outcome.reason else outcome.status
        shown.add_row(outcome.stage, fate, kept, dropped, f"{outcome.seconds:.1f}" if outcome.seconds else "")
    return shown
