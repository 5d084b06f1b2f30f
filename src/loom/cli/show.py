"""How the tools of the command line print: tables for a person, JSON for a script."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["duration", "instant", "print_json", "print_json_line", "print_table"]

#: of a line that is not printed to a terminal
_WIDE = 100_000


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> None:
    """Print a table on standard output; cells are text as it is. `right` are the columns of numbers."""
    numbers = set(right)
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    with console.capture() as printed:
        console.print(table)
    # A cell is padded to its column, the last one too.
    sys.stdout.write("".join(line.rstrip() + "\n" for line in printed.get().splitlines()))


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_json_line(value: Any) -> None:
    """Print one line of JSON, at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def instant(timestamp_ms: int | None) -> str:
    """A timestamp as people read it.

    >>> instant(1_700_000_000_123)
    '2023-11-14T22:13:20.123Z'
    """
    if timestamp_ms is None:
        return "-"
    try:
        found = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{timestamp_ms} ms"
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(ms: int | None) -> str:
    """A time span as people say it.

    >>> [duration(ms) for ms in (None, 0, 350, 61_000, 3 * 86_400_000)]
    ['-', '0 s', '0.3 s', '1 min 1 s', '3 d 0 h']
    """
    if ms is None:
        return "-"
    seconds = ms // 1000
    if ms < 10_000:
        return f"{ms // 100 / 10:g} s"
    for size, name, next_size, next_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {name} {seconds % size // next_size} {next_name}"
    return f"{seconds} s"
