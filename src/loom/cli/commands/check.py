"""`loom check`: compile a flow and explain the plan. Needs no broker and opens nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from loom.cli.beside import flows_beside
from loom.cli.load_flow import load_flow
from loom.cli.options import AsJson, Debug, ProjectConfig, ProjectFlow, Sinks, end_guarded
from loom.cli.project import project_config, project_flow
from loom.cli.show import print_json
from loom.cli.sinks import register_sinks
from loom.core.config import ConfigContext, ConfigError, ConfigProblem
from loom.streaming.compiler.catalogue import CompilationError, Issue
from loom.streaming.flow import StreamFlow

if TYPE_CHECKING:
    from loom.streaming.runtime.prepare import PreparedFlow

__all__ = ["check_flow", "command"]


def command(
    flow: ProjectFlow = None,
    config: ProjectConfig = None,
    debug: Debug = False,
    sink: Sinks = None,
    as_json: AsJson = False,
) -> None:
    """Compile a flow and print its plan and the sinks of the config. Needs no broker.

    With --json it prints the plan, or every problem with its code, place and help. The message on standard error and the exit
    code are the same.
    """

    def work() -> None:
        prepared = _prepared(load_flow(project_flow(flow)), ConfigContext.from_yaml(project_config(config)), sink or [])
        if as_json:
            plan: dict[str, Any] = msgspec.json.decode(prepared.plan.explain("json"))
            print_json({"plan": plan, "sinks": list(prepared.sinks.describe()), "problems": []})
        else:
            typer.echo(_explained(prepared))

    def told() -> None:
        try:
            work()
        except CompilationError as error:
            print_json({"plan": None, "sinks": [], "problems": [_issue(one) for one in error.errors]})
            raise
        except ConfigError as error:
            print_json({"plan": None, "sinks": [], "problems": [_problem(one) for one in error.problems]})
            raise

    end_guarded(told if as_json else work, debug)


def check_flow(flow: StreamFlow[Any, Any], config: ConfigContext, sink_names: Iterable[str]) -> str:
    """The plan of a flow and the sinks of its config as text, after every check that a run starts with."""
    return _explained(_prepared(flow, config, sink_names))


def _prepared(flow: StreamFlow[Any, Any], config: ConfigContext, sink_names: Iterable[str]) -> PreparedFlow:
    from loom.streaming.runtime.prepare import prepare
    from loom.streaming.runtime.registry import SinkRegistry

    registry = SinkRegistry()
    register_sinks(registry.register, sink_names, config)
    return prepare(flow, config, registry, beside=flows_beside(flow))


def _explained(prepared: PreparedFlow) -> str:
    return "\n".join([prepared.plan.explain(), *(f"  sink    {line}" for line in prepared.sinks.describe())])


def _issue(issue: Issue) -> dict[str, Any]:
    return {
        "code": issue.code.value,
        "where": issue.where,
        "path": list(issue.path),
        "message": issue.message,
        "expected": issue.expected,
        "found": issue.found,
        "help": issue.remedy,
    }


def _problem(problem: ConfigProblem) -> dict[str, Any]:
    nearest = f"did you mean `{problem.nearest}`?" if problem.nearest is not None else None
    return {
        "code": "config-invalid",
        "where": "config",
        "file": problem.file,
        "key": problem.key,
        "message": problem.message,
        "help": problem.remedy or nearest,
    }
