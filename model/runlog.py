"""What a training run writes while it runs: a JSONL file, TensorBoard events, and progress bars. It computes nothing.

After a resume the file goes on from the step of the saved state: lines of steps that are done again are dropped first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

LOG = "log.jsonl"


class RunLog:
    """One line per step with its losses and learning rate, one per epoch with mean losses and validation results."""

    def __init__(self, folder: Path, global_step: int) -> None:
        self.path = folder / LOG
        kept = [line for line in self._lines() if json.loads(line)["global_step"] <= global_step]
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=global_step + 1 if kept else None)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._events.close()

    def write(self, kind: str, global_step: int, **values: Any) -> None:
        """Append one record; the numbers among ``values``, nested ones included, also become TensorBoard scalars."""
        self._file.write(json.dumps({"kind": kind, "global_step": global_step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            inner = value if isinstance(value, dict) else {"": value}
            for key, number in inner.items():
                if isinstance(number, int | float) and not isinstance(number, bool):
                    self._events.add_scalar("/".join(part for part in (kind, name, key) if part), number, global_step)

    def _lines(self) -> list[str]:
        """The whole lines of an earlier file; a line cut off by a crash has no newline and is left out."""
        if not self.path.exists():
            return []
        return self.path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()


class Screen:
    """Progress bars and lines for a person; silent where ``shown`` is False."""

    def __init__(self, shown: bool) -> None:
        self._console = Console(quiet=not shown)

    def line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar that the yielded function advances, with the items a second beside it."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        shown = self._console.is_terminal and not self._console.quiet  # a log file gets the lines only
        with Progress(*columns, console=self._console, transient=True, disable=not shown) as progress:
            task = progress.add_task(title, total=total, rate="")
            start = perf_counter()

            def advance(count: int) -> None:
                done = progress.tasks[0].completed + count
                progress.update(task, advance=count, rate=f"{done / (perf_counter() - start):.1f}/s")

            yield advance
