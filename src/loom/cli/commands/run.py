"""`loom run`: run a flow until it is stopped or its input ends."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from loom.cli.load_flow import load_flow
from loom.cli.options import Debug, ProjectConfig, ProjectFlow, Sinks, end
from loom.cli.program import run_program
from loom.cli.project import project_config, project_flow
from loom.core.config import ConfigContext

__all__ = ["command"]


Processes: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--processes", metavar="N|auto", help="share the partitions among so many processes; auto: one for each core"
    ),
]


def command(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    debug: Debug = False,
    sink: Sinks = None,
    processes: Processes = None,
) -> None:
    """Run a flow until it is stopped (SIGTERM or SIGINT) or its input ends.

    Exit codes: 0 done, 1 the run failed, 2 usage, 3 config, 4 the flow does not compile, 5 broker, topic, offset or
    directory, 6 a stop that took too long, 7 restart needed (a transaction was aborted, say), 8 another instance took over,
    9 the flow was stalled with records to read.

    With streaming.supervision.restarts in the config, the flow runs in a child process and is restarted when it fails.
    With --processes it runs in so many, each restarted alone; LOOM_PROCESS_ID and LOOM_PROCESSES make this one of several
    that something else starts.
    """

    end(
        run_program(
            lambda: load_flow(project_flow(flow)),
            lambda: ConfigContext.from_yaml(project_config(config)),
            sink_names=sink or [],
            processes=processes,
            debug=debug,
        )
    )
