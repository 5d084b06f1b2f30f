"""`loom demo`: the flights example on an in-process broker."""

from __future__ import annotations

from typing import Annotated

import typer

from loom.cli.options import Debug, end_guarded
from loom.cli.program import log_to_stderr

__all__ = ["command"]


def command(
    records: Annotated[int | None, typer.Option(help="how many flights to send; all of them by default")] = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="send them again and again, until Ctrl+C")] = False,
    debug: Debug = False,
) -> None:
    """Run the flights example on an in-process broker: real data, live counters and a live page, a table that adds up."""

    def work() -> None:
        log_to_stderr(debug, quiet=not debug)
        from loom.cli.demo import run_demo

        run_demo(records, repeat=repeat)

    end_guarded(work, debug)
