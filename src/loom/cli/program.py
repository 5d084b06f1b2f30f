"""A flow as a program: runs it, supervised if the config says so, and turns errors into one message on standard error and a
documented exit code. Used by `loom run` and by the `__main__` of a flow.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

from loom.cli.beside import flows_beside
from loom.cli.exit_codes import Exit, FlowNotFoundError, exit_for
from loom.cli.processes import process_count, refuse_other_layouts
from loom.cli.sinks import register_sinks
from loom.cli.supervisor.channel import ChildEnd
from loom.cli.supervisor.supervise import same_command, supervise
from loom.core.config import ConfigContext, ConfigError
from loom.core.errors import LoomError
from loom.core.signals import end_on_sigterm
from loom.streaming.flow import StreamFlow
from loom.streaming.kafka.errors import BrokerUnavailableError
from loom.streaming.runtime.run_errors import ForcedShutdownError
from loom.streaming.runtime.settings import StreamingSection

if TYPE_CHECKING:
    from loom.streaming.runtime.registry import RegisteredSink
    from loom.streaming.runtime.runner import StreamingRunner

__all__ = ["guarded", "log_to_stderr", "main", "run_program"]

_OFF = ("", "0", "false", "no", "off")


def main(
    flow: StreamFlow[Any, Any],
    config: ConfigContext | Mapping[str, Any] | str | PathLike[str],
    *,
    sinks: Iterable[type[RegisteredSink]] = (),
) -> None:
    """Run a flow as `loom run` does, with its messages, exit codes and supervision: what a flow's `__main__` calls.

    Returns when the flow was stopped in order or its input is over, else ends the program with the exit code. With
    `LOOM_DEBUG=1` in the environment tracebacks and the client's own log lines are shown.

    >>> if __name__ == "__main__":
    ...     main(flow, "config.yaml")

    Args:
        flow: the flow.
        config: a YAML file or a mapping.
        sinks: classes that the config may name, besides those of installed packages.

    Raises:
        SystemExit: with the exit code, unless it is 0.
    """
    end_on_sigterm()

    def load() -> StreamFlow[Any, Any]:
        if not isinstance(flow, StreamFlow):
            raise FlowNotFoundError(f"main() takes a StreamFlow, not a {type(flow).__qualname__}")
        return flow

    def configure() -> ConfigContext:
        if isinstance(config, ConfigContext):
            return config
        return ConfigContext.from_dict(config) if isinstance(config, Mapping) else ConfigContext.from_yaml(config)

    debug = os.environ.get("LOOM_DEBUG", "").lower() not in _OFF
    code = run_program(load, configure, sinks=sinks, debug=debug)
    if code:
        raise SystemExit(code)


def run_program(
    load: Callable[[], StreamFlow[Any, Any]],
    configure: Callable[[], ConfigContext],
    *,
    sinks: Iterable[type[RegisteredSink]] = (),
    sink_names: Iterable[str] = (),
    processes: str | None = None,
    leaves_group: bool = False,
    debug: bool,
) -> int:
    """Run a flow until it is stopped or its input ends, in a child process where the config asks for restarts.

    `processes` is a number or `auto`: so many child processes share the partitions.

    Returns the exit code, after printing what went wrong.
    """
    supervisor = ChildEnd.from_environment()
    passed_on: list[int] = []

    def work() -> None:
        log_to_stderr(debug)
        settings = configure()
        section = _streaming_section(settings)
        if supervisor is None and processes is not None:
            refuse_other_layouts(os.environ, section.runtime, settings.file)
            count = process_count(processes, load, settings)
            passed_on.append(supervise(same_command(), section.supervision, count))
            return
        if supervisor is None and section.supervision.restarts:
            passed_on.append(supervise(same_command(), section.supervision))
            return
        flow = load()
        from loom.streaming.runtime.runner import StreamingRunner

        runner = StreamingRunner.from_context(flow, config=settings)
        register_sinks(runner.register_sink, sink_names, settings)
        for sink in sinks:
            runner.register_sink(sink)
        runner.beside = flows_beside(flow)
        runner.leaves_group = leaves_group
        runner.on_overdue_stop = partial(_end_now, supervisor)
        if supervisor is None:
            runner.run()
        else:
            _run_supervised(runner, supervisor, section)

    code = guarded(work, debug)
    _announce(supervisor, code)
    return passed_on[0] if passed_on else code


def guarded(work: Callable[[], None], debug: bool) -> int:
    """Call `work` and return the exit code; an error becomes one message on standard error."""
    try:
        work()
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the last boundary: a message and a code, no traceback
        if debug:
            traceback.print_exc()
        _say(error)
        return exit_for(error)
    return Exit.DONE


def log_to_stderr(debug: bool, *, quiet: bool = False) -> None:
    """Set up logging of this process as for a `loom` command."""
    from loom.core.logger import configure_logging

    level = "debug" if debug else "critical" if quiet else "info"
    configure_logging(level=level)
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    # The client repeats every lost connection many times; what matters is raised or logged by us.
    logging.getLogger("loom.streaming.kafka.client").setLevel(logging.DEBUG if debug else logging.CRITICAL)


def _say(error: BaseException) -> None:
    text = _text(error) if isinstance(error, (LoomError, FlowNotFoundError)) else _named_text(error)
    print(f"loom: {text}", file=sys.stderr)
    cause = error.__cause__
    if cause is not None and (getattr(cause, "strerror", None) or _text(cause)) not in text:
        print(f"loom: caused by {_named_text(cause)}", file=sys.stderr)


def _named_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {_text(error)}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception of the author whose text cannot be made
        return type(error).__name__


def _streaming_section(settings: ConfigContext) -> StreamingSection:
    try:
        return settings.section_or_default("streaming", StreamingSection, StreamingSection())
    except ConfigError:
        return StreamingSection()  # the runner reports it, with everything else that is wrong


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
    """A stop is overdue and the run does not return from code that is not ours: end the process."""
    _say(error)
    sys.stderr.flush()
    forced_by = error.signal if isinstance(error, ForcedShutdownError) else None
    code = exit_for(error) if forced_by is None else 128 + forced_by
    _announce(supervisor, code)
    os._exit(code)


def _announce(supervisor: ChildEnd | None, code: int) -> None:
    """Tell the supervisor that the runner chose this exit code; any other end counts as a crash."""
    if supervisor is not None:
        supervisor.ends(code)
