"""`loom run`: run a flow until it is stopped or its input ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from loom.cli.exit_codes import InputError
from loom.cli.load_flow import load_flow
from loom.cli.options import Debug, ProjectConfig, ProjectFlow, Sinks, end, end_guarded
from loom.cli.program import log_to_stderr, run_program
from loom.cli.project import project_config, project_flow
from loom.core.config import ConfigContext

__all__ = ["command"]


Processes: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--processes", metavar="N|auto", help="share the partitions among so many processes; auto: one for each core"
    ),
]


Leave: TypeAlias = Annotated[
    bool, typer.Option("--leave", help="when stopped, leave the group for good, also with a group_instance_id")
]


def command(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    debug: Debug = False,
    sink: Sinks = None,
    processes: Processes = None,
    leave: Leave = False,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="FILE", help="read this file to its end: JSONL, CSV with a header line, or Parquet"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="with --source: write a file for each topic into this folder"),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="FIELD", help="with --source: the field that becomes the record key")
    ] = None,
    records: Annotated[
        bool,
        typer.Option("--records", help="with --source: lines are whole records, as `topics tail --json` prints them"),
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="with --source: from the first line, whatever is done")
    ] = False,
) -> None:
    """Run a flow until it is stopped (SIGTERM or SIGINT) or its input ends.

    Exit codes: 0 done, 1 the run failed, 2 usage, 3 config, 4 the flow does not compile, 5 broker, topic, offset or
    directory, 6 a stop that took too long, 7 restart needed (a transaction was aborted, say), 8 another instance took over,
    9 the flow was stalled with records to read.

    With streaming.supervision.restarts in the config, the flow runs in a child process and is restarted when it fails.
    With --processes it runs in so many, each restarted alone; LOOM_PROCESS_ID and LOOM_PROCESSES make this one of several
    that something else starts. With --source it reads a file instead of its topics, and ends with it.
    """

    if source is not None or output is not None or key is not None or records or restart:
        asked = (source, output, key, records, restart, processes)
        end_guarded(lambda: _backfill(flow, config, asked, sink or [], debug), debug)
        return
    end(
        run_program(
            lambda: load_flow(project_flow(flow)),
            lambda: ConfigContext.from_yaml(project_config(config)),
            sink_names=sink or [],
            processes=processes,
            leaves_group=leave,
            debug=debug,
        )
    )


def _backfill(
    flow: str | None,
    config: Path | None,
    asked: tuple[str | None, Path | None, str | None, bool, bool, str | None],
    sinks: list[str],
    debug: bool,
) -> None:
    log_to_stderr(debug)
    from loom.cli.backfill import Backfill, run_backfill

    source, output, key, records, restart, processes = asked
    if source is None:
        given = [
            name for name, one in zip(("--output", "--key", "--records", "--restart"), asked[1:5], strict=True) if one
        ]
        raise InputError(f"{given[0]} needs --source FILE")
    if processes is not None:
        raise InputError("--processes and --source exclude each other: a file is read by one process")
    loaded = load_flow(project_flow(flow))
    run_backfill(
        loaded,
        ConfigContext.from_yaml(project_config(config)),
        Backfill(source, output, key, records, restart),
        sinks,
    )
