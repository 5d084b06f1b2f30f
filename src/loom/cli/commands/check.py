"""`loom check`: compile a flow and explain the plan. Needs no broker and opens nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

from loom.cli.beside import flows_beside
from loom.cli.load_flow import load_flow
from loom.cli.options import Debug, ProjectConfig, ProjectFlow, Sinks, end_guarded
from loom.cli.project import project_config, project_flow
from loom.cli.sinks import register_sinks
from loom.core.config import ConfigContext
from loom.streaming.flow import StreamFlow

__all__ = ["check_flow", "command"]


def command(flow: ProjectFlow = None, config: ProjectConfig = None, debug: Debug = False, sink: Sinks = None) -> None:
    """Compile a flow and print its plan and the sinks of the config. Needs no broker."""

    def work() -> None:
        typer.echo(
            check_flow(load_flow(project_flow(flow)), ConfigContext.from_yaml(project_config(config)), sink or [])
        )

    end_guarded(work, debug)


def check_flow(flow: StreamFlow[Any, Any], config: ConfigContext, sink_names: Iterable[str]) -> str:
    """The plan of a flow and the sinks of its config as text, after every check that a run starts with."""
    from loom.streaming.runtime.prepare import prepare
    from loom.streaming.runtime.registry import SinkRegistry

    registry = SinkRegistry()
    register_sinks(registry.register, sink_names, config)
    prepared = prepare(flow, config, registry, beside=flows_beside(flow))
    return "\n".join([prepared.plan.explain(), *(f"  sink    {line}" for line in prepared.sinks.describe())])
