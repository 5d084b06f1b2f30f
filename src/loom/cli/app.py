"""The commands of `loom`: each subcommand turns what it is asked into one call and errors into one message and an exit code."""

from __future__ import annotations

import platform
from collections.abc import Callable
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from loom.cli.load_flow import load_flow
from loom.cli.program import guarded, log_to_stderr, run_program
from loom.core.config import ConfigContext

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Target = Annotated[str, typer.Argument(metavar="MODULE:FLOW", help="the flow to take, as module:name or file.py:name")]
_Config = Annotated[Path, typer.Option("--config", "-c", help="the YAML file with its settings")]
_Debug = Annotated[
    bool, typer.Option("--debug", envvar="LOOM_DEBUG", help="show tracebacks and the client's own log lines")
]
_Sinks = Annotated[
    list[str] | None, typer.Option("--sink", metavar="MODULE:CLASS", help="let the config name this sink class")
]


def _version(asked: bool) -> None:
    if asked:
        parts = ", ".join(f"{name} {version(name)}" for name in ("bytewax", "confluent-kafka"))
        typer.echo(f"loom-streaming {version('loom-streaming')} ({parts}, Python {platform.python_version()})")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say which version this is, and end")
    ] = False,
) -> None:
    """Typed stream processors: declared, checked, then run."""


class _GraphFormat(Enum):
    MERMAID = "mermaid"
    JSON = "json"
    TEXT = "text"


@app.command()
def run(flow: _Target, config: _Config, debug: _Debug = False, sink: _Sinks = None) -> None:
    """Run a flow until it is stopped (SIGTERM or SIGINT) or its input ends.

    Exit codes: 0 done, 1 the run failed, 2 usage, 3 config, 4 the flow does not compile, 5 broker, topic, position or
    directory, 6 a stop that took too long, 7 a transaction was aborted (start again), 8 another instance took over, 9 the
    flow stood still with records to read.

    With streaming.supervision.restarts in the config the flow runs in a child process, which is started again when it
    fails.
    """

    _end(
        run_program(
            lambda: load_flow(flow), lambda: ConfigContext.from_yaml(config), sink_names=sink or [], debug=debug
        )
    )


@app.command()
def check(flow: _Target, config: _Config, debug: _Debug = False, sink: _Sinks = None) -> None:
    """Compile a flow, explain the plan and name the sinks of the config. Needs no broker and opens nothing."""

    def work() -> None:
        from loom.cli.plans import check_flow

        typer.echo(check_flow(load_flow(flow), ConfigContext.from_yaml(config), sink or []))

    _guarded(work, debug)


@app.command()
def graph(
    flow: _Target,
    config: _Config,
    debug: _Debug = False,
    format: Annotated[
        _GraphFormat, typer.Option("--format", "-f", help="a Mermaid flowchart, JSON for programs, or text")
    ] = _GraphFormat.MERMAID,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write to this file, not to standard output")
    ] = None,
) -> None:
    """Draw the plan of a flow. Needs no broker; the sinks that the config names are no part of the plan."""

    def work() -> None:
        from loom.streaming.compiler.compile import compile_flow

        plan = compile_flow(load_flow(flow), config=ConfigContext.from_yaml(config))
        text = plan.explain(format.value)
        if output is None:
            typer.echo(text)
        else:
            output.write_text(text + "\n", encoding="utf-8")

    _guarded(work, debug)


@app.command()
def demo(
    records: Annotated[int | None, typer.Option(help="how many flights to send; all of them by default")] = None,
    debug: _Debug = False,
) -> None:
    """Run the flights example on an in-process broker: real data, live counters, a table that adds up."""

    def work() -> None:
        log_to_stderr(debug, quiet=not debug)
        from loom.cli.demo import run_demo

        run_demo(records)

    _guarded(work, debug)


def _guarded(work: Callable[[], None], debug: bool) -> None:
    _end(guarded(work, debug))


def _end(code: int) -> None:
    if code:
        raise typer.Exit(code)
