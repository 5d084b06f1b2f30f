"""Structured logs, on stderr, with secrets masked.

`get_logger` is called at import time all over Loom and by steps, so it costs nothing. Lines are structlog's where the process
uses structlog, and where they are coloured for a terminal; elsewhere they have the same form and structlog is not loaded.
`configure_logging` is called by the CLI and the runner.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, NamedTuple, TextIO

from loom.core.log_context import current_log_context
from loom.core.log_lines import write_line
from loom.core.redaction import redact_mapping

__all__ = ["Logger", "configure_logging", "get_logger", "redact_secrets"]

#: the environment variable that decides where nothing else does
_FORMAT = "LOOM_LOG_FORMAT"
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class Logger:
    """A named logger whose every line carries its context.

    It uses the configuration at the time a line is written, so it can be created before `configure_logging`.
    Safe to use from any thread.
    """

    __slots__ = ("_context", "_name")

    def __init__(self, name: str, context: dict[str, Any]) -> None:
        self._name = name
        self._context = context

    def bind(self, **context: Any) -> Logger:
        """A logger with more context."""
        return Logger(self._name, {**self._context, **context})

    def debug(self, event: str, **fields: Any) -> None:
        """Write a line for developers."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Write a line about normal operation."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write a line about something to check."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write a line about what went wrong."""
        self._write("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Write an error with the traceback of the current exception."""
        self._write("error", event, fields, exception=True)

    def critical(self, event: str, **fields: Any) -> None:
        """Write a line about what ends the program."""
        self._write("critical", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any], *, exception: bool = False) -> None:
        stream = _settings.stream if _settings.stream is not None else sys.stderr
        if _needs_structlog(stream):
            logger = self._structlog()
            (logger.exception if exception else getattr(logger, level))(event, **fields)
        elif _LEVELS[level] >= _LEVELS[_settings.level]:
            line = {"logger": self._name, **current_log_context(), **self._context, **fields}
            write_line(stream, _format_for(stream), level, event, line, exception=exception)

    def _structlog(self) -> Any:
        import structlog

        if not structlog.is_configured():
            _configure_structlog()
        # Bound anew for each line, so that it takes up the configuration of the moment.
        return structlog.get_logger().bind(logger=self._name, **{**current_log_context(), **self._context})


class _Settings(NamedTuple):
    """What `configure_logging` was last given."""

    level: str = "info"
    format: Literal["auto", "console", "json"] = "auto"
    stream: TextIO | None = None


_settings = _Settings()


def _format_for(stream: TextIO) -> Literal["console", "json"]:
    if _settings.format != "auto":
        return _settings.format
    given = os.environ.get(_FORMAT)
    if given == "console":
        return "console"
    if given == "json":
        return "json"
    return "console" if stream.isatty() else "json"


def _needs_structlog(stream: TextIO) -> bool:
    """Whether somebody in this process uses structlog, perhaps with a configuration of its own, or lines have colours."""
    return "structlog" in sys.modules or (_settings.format != "json" and stream.isatty())


def get_logger(name: str, **context: Any) -> Logger:
    """A logger.

    >>> log = get_logger("orders", topic="orders.raw")
    >>> log.debug("not shown by default")

    Args:
        name: written as `logger` in every line.
        context: written in every line as well.
    """
    return Logger(name, context)


def configure_logging(
    level: str = "info", format: Literal["auto", "console", "json"] = "auto", stream: TextIO | None = None
) -> None:
    """Set up structlog for this process. May be called again; loggers that exist follow.

    Without a call, the first line that is written configures the defaults, unless the application has configured
    structlog itself, whose configuration is then used as it is (`redact_secrets` can be added to its processors).

    Args:
        level: `debug`, `info`, `warning`, `error` or `critical`; lines below it are dropped.
        format: `console` for people, `json` for one object per line; `auto` is what the environment variable
            `LOOM_LOG_FORMAT` says, else `console` on a terminal and `json` elsewhere.
        stream: where lines go; None means whatever `sys.stderr` is when a line is written.

    Raises:
        ValueError: when the level or the format is none of these.
    """
    if level.lower() not in _LEVELS:
        raise ValueError(f"the log level {level!r} is none of {', '.join(_LEVELS)}")
    if format not in ("auto", "console", "json"):
        raise ValueError(f"the log format {format!r} is none of auto, console, json")

    global _settings  # noqa: PLW0603 - logging is one for the process
    _settings = _Settings(level.lower(), format, stream)
    if "structlog" in sys.modules:
        _configure_structlog()


def _configure_structlog() -> None:
    level, _, stream = _settings
    import structlog

    format = _format_for(stream if stream is not None else sys.stderr)

    def open_writer(*_: Any) -> structlog.WriteLogger:
        return structlog.WriteLogger(stream if stream is not None else sys.stderr)

    # Tracebacks are written without local variables, which structlog would add: they hold configurations and payloads.
    renderer: Any = structlog.processors.JSONRenderer()
    if format == "console":
        terminal = (stream if stream is not None else sys.stderr).isatty()
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=plain, sort_keys=False)
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_secrets,
        renderer,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=open_writer,
        cache_logger_on_first_use=False,
    )


def redact_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor that masks the values of fields whose names speak of secrets, at any depth."""
    return redact_mapping(event)
