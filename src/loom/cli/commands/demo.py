"""`loom demo`: the flights example on an in-process broker, or under chaos."""

from __future__ import annotations

from typing import Annotated

import typer

from loom.cli.exit_codes import InputError
from loom.cli.options import Brokers, Debug, end_guarded
from loom.cli.program import log_to_stderr

__all__ = ["command"]


def command(
    records: Annotated[int | None, typer.Option(min=1, help="how many flights to send; all of them by default")] = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="send them again and again, until Ctrl+C")] = False,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="kill the flow at random while it works, and keep books of every record")
    ] = False,
    kills: Annotated[int | None, typer.Option(min=1, max=100, help="with --chaos: how often; 5 by default")] = None,
    brokers: Brokers = None,
    debug: Debug = False,
) -> None:
    """Run the flights example on an in-process broker: real data, live counters and a live page, a table that adds up.

    With --chaos the flow runs in a process of its own that is killed (SIGKILL) and started again, and the books show what is
    lost and doubled; the exit code is 1 if they do not balance. It is at-least-once there, and with --brokers exactly-once, on
    topics of its own that are deleted afterwards.
    """

    def work() -> None:
        log_to_stderr(debug, quiet=not debug)
        if chaos:
            if repeat:
                raise InputError("--repeat and --chaos exclude each other: the run under chaos ends by itself")
            from loom.cli.chaos.run import run_chaos

            run_chaos(kills or 5, records, brokers)
            return
        if kills is not None or brokers is not None:
            raise InputError(f"{'--kills' if kills is not None else '--brokers'} needs --chaos")
        from loom.cli.demo import run_demo

        run_demo(records, repeat=repeat)

    end_guarded(work, debug)
