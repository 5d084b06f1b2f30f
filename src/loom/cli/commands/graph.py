"""`loom graph`: draw the plan of a flow."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from loom.cli.load_flow import load_flow
from loom.cli.options import Debug, ProjectConfig, ProjectFlow, end_guarded
from loom.cli.project import project_config, project_flow
from loom.core.config import ConfigContext
from loom.streaming.compiler.compile import compile_flow

__all__ = ["command"]


class _GraphFormat(Enum):
    MERMAID = "mermaid"
    JSON = "json"
    ASYNCAPI = "asyncapi"
    TEXT = "text"
    CODE = "code"


def command(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    debug: Debug = False,
    format: Annotated[
        _GraphFormat,
        typer.Option(
            "--format", "-f", help="a Mermaid flowchart, JSON for programs, AsyncAPI 3, text, or the Python that runs"
        ),
    ] = _GraphFormat.MERMAID,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write to this file instead of standard output")
    ] = None,
) -> None:
    """Draw the plan of a flow. Needs no broker; sinks that the config names are not part of the plan."""

    def work() -> None:
        plan = compile_flow(load_flow(project_flow(flow)), config=ConfigContext.from_yaml(project_config(config)))
        text = plan.explain(format.value)
        if output is None:
            typer.echo(text)
        else:
            output.write_text(text + "\n", encoding="utf-8")

    end_guarded(work, debug)
