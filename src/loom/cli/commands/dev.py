"""`loom dev`: run a flow on an in-process broker while you write it."""

from __future__ import annotations

from typing import Annotated

import typer

from loom.cli.options import Debug, ProjectConfig, ProjectFlow, Sinks, end_guarded
from loom.cli.program import log_to_stderr

__all__ = ["command"]


def command(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", metavar="FILE", help="JSONL, CSV with a header line, or Parquet; - is standard input"
        ),
    ] = None,
    generate: Annotated[
        bool,
        typer.Option(
            "--generate", help="payloads made up from the type that the flow reads, whatever the project says"
        ),
    ] = False,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="how many payloads are made up")] = None,
    rate: Annotated[float | None, typer.Option("--rate", min=0.1, help="at most this many records a second")] = None,
    seed: Annotated[int, typer.Option("--seed", help="other made-up payloads")] = 0,
    key: Annotated[
        str | None, typer.Option("--key", metavar="FIELD", help="the field that becomes the record key")
    ] = None,
    records: Annotated[
        bool, typer.Option("--records", help="each line is a whole record, as `topics tail --json` prints it")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="end when the input is over")] = False,
    reload: Annotated[bool, typer.Option("--reload/--no-reload", help="start again when a file changes")] = True,
    sink: Sinks = None,
    debug: Debug = False,
) -> None:
    """Run a flow on an in-process broker, and show what it writes and what fails, decoded, as it comes. Needs no Kafka.

    The input is that of the project ([tool.loom] in pyproject.toml), a file, standard input, or made-up payloads. When a file
    of the working directory changes, the flow starts again with the input from its beginning.
    """

    def work() -> None:
        log_to_stderr(debug, quiet=not debug)
        from loom.cli.dev import DevCommand, run_dev

        dev = DevCommand(
            flow,
            config,
            file=file,
            generate=generate,
            count=count,
            rate=rate,
            seed=seed,
            key=key,
            records=records,
            once=once,
            sinks=sink or [],
        )
        run_dev(dev, reload=reload)

    end_guarded(work, debug)
