"""The commands of `loom`: each subcommand turns what it is asked into one call and errors into one message and an exit code."""

from __future__ import annotations

import logging
import os
import platform
import sys
import traceback
from collections.abc import Callable
from enum import Enum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loom.cli.beside import flows_beside
from loom.cli.exits import Exit, FlowNotFoundError, exit_for
from loom.cli.link import ChildEnd
from loom.cli.load import load_flow
from loom.cli.sinks import register_sinks
from loom.cli.supervise import same_command, supervise
from loom.core.config import ConfigContext, ConfigError
from loom.core.errors import LoomError
from loom.streaming.bytewax.errors import ForcedShutdownError
from loom.streaming.bytewax.settings import StreamingSection
from loom.streaming.kafka.errors import BrokerUnavailableError

if TYPE_CHECKING:
    from loom.streaming.bytewax.runner import StreamingRunner

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Target = Annotated[str, typer.Argument(metavar="MODULE:FLOW", help="the flow to take, as module:name or file.py:name")]
_Config = Annotated[Path, typer.Option("--config", "-c", help="the YAML file with its settings")]
_Debug = Annotated[bool, typer.Option("--debug", help="show tracebacks and the client's own log lines")]
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

    supervisor = ChildEnd.from_environment()

    def work() -> None:
        _log_to_stderr(debug)
        settings = ConfigContext.from_yaml(config)
        section = _streaming_section(settings)
        if supervisor is None and section.supervision.restarts:
            raise SystemExit(supervise(same_command(), section.supervision))
        declared = load_flow(flow)
        from loom.streaming.bytewax.runner import StreamingRunner

        runner = StreamingRunner.from_context(declared, config=settings)
        register_sinks(runner.register_sink, sink or [], settings)
        runner.beside = flows_beside(declared)
        runner.on_overdue_stop = partial(_end_now, supervisor)
        if supervisor is None:
            runner.run()
        else:
            _run_supervised(runner, supervisor, section)

    try:
        _guarded(work, debug)
    except typer.Exit as ending:
        _announce(supervisor, ending.exit_code)
        raise
    _announce(supervisor, Exit.DONE)


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
        _log_to_stderr(debug, quiet=not debug)
        from loom.cli.demo import run_demo

        run_demo(records)

    _guarded(work, debug)


def _guarded(work: Callable[[], None], debug: bool) -> None:
    """Run a command; what goes wrong becomes one message on stderr and a documented exit code."""
    try:
        work()
    except (LoomError, FlowNotFoundError, TypeError, ValueError, OSError) as error:
        if debug:
            traceback.print_exc()
        _say(error)
        raise typer.Exit(exit_for(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:  # noqa: BLE001 - the last boundary: a message and a code, no traceback
        if debug:
            traceback.print_exc()
        _say(error)
        raise typer.Exit(Exit.FAILED) from None


def _say(error: BaseException) -> None:
    text = _text(error) if isinstance(error, (LoomError, FlowNotFoundError)) else _named_text(error)
    typer.echo(f"loom: {text}", err=True)
    cause = error.__cause__
    if cause is not None and (getattr(cause, "strerror", None) or _text(cause)) not in text:
        typer.echo(f"loom: caused by {_named_text(cause)}", err=True)


def _named_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {_text(error)}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an author's own exception that cannot even be told
        return type(error).__name__


def _log_to_stderr(debug: bool, *, quiet: bool = False) -> None:
    from loom.core.logger import configure_logging

    level = "debug" if debug else "critical" if quiet else "info"
    configure_logging(level=level)
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    # The client says every lost connection many times over; what matters is raised or logged by us.
    logging.getLogger("loom.streaming.kafka.client").setLevel(logging.DEBUG if debug else logging.CRITICAL)


def _streaming_section(settings: ConfigContext) -> StreamingSection:
    try:
        return settings.section_or_default("streaming", StreamingSection, StreamingSection())
    except ConfigError:
        return StreamingSection()  # the runner tells it, with everything else that is wrong


def _run_supervised(runner: StreamingRunner, supervisor: ChildEnd, section: StreamingSection) -> None:
    runner.supervisor = supervisor
    if section.runtime.force_shutdown_timeout_ms is not None:
        supervisor.orphan_limit_s = section.runtime.force_shutdown_timeout_ms / 1000 + 2
    try:
        runner.run()
    except BrokerUnavailableError:
        supervisor.broker_fault()
        raise


def _end_now(supervisor: ChildEnd | None, error: LoomError) -> None:
    """A stop is overdue and the run does not come back from code that is not ours: the process ends itself."""
    _say(error)
    sys.stderr.flush()
    forced_by = error.signal if isinstance(error, ForcedShutdownError) else None
    code = exit_for(error) if forced_by is None else 128 + forced_by
    _announce(supervisor, code)
    os._exit(code)


def _announce(supervisor: ChildEnd | None, code: int) -> None:
    """An end that the supervisor does not hear of is none of the runner's, whatever the code."""
    if supervisor is not None:
        supervisor.ends(code)
