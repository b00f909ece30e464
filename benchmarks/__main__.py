"""`make bench`: run the named benchmarks (all of them by default) and print their tables."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from os import cpu_count

from rich.console import Console
from rich.table import Table

from benchmarks import compressed, embed, explain, ingest, search, start

BENCHMARKS: dict[str, Callable[[], Table]] = {
    "embed": embed.table,
    "search": search.table,
    "compressed": compressed.table,
    "explain": explain.table,
    "start": start.table,
    "ingest": ingest.table,
}


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"No benchmark named {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}.")
    console = Console()
    console.print(f"{platform.machine()}, {cpu_count()} cores, Python {platform.python_version()}")
    for name in names:
        console.print(BENCHMARKS[name]())


if __name__ == "__main__":
    main()
