"""Log lines in the form that structlog gives them, written without loading it.

Used by `logger.py` while nothing else in the process has imported structlog, which with what it imports in turn (rich,
pygments, asyncio) is a quarter of what a flow's process loads before its first record.
"""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from loom.core.redaction import redact_mapping

__all__ = ["write_line"]

_LEVEL_WIDTH = 9
_EVENT_WIDTH = 30
#: texts that hold one of these are shown in quotes
_QUOTED = frozenset(" \t=\r\n\"'")
_lock = threading.Lock()


def write_line(
    stream: TextIO, format: str, level: str, event: str, fields: Mapping[str, Any], *, exception: bool = False
) -> None:
    """Write one line, with the exception at hand where one is asked for, and secrets masked."""
    line: dict[str, Any] = {**fields, "event": event, "level": level, "timestamp": _now()}
    given = line.pop("exc_info", None)
    if isinstance(given, tuple):
        line["exception"] = "".join(traceback.format_exception(*given)).removesuffix("\n")
    elif exception or given:
        line["exception"] = traceback.format_exc().removesuffix("\n")
    line = dict(redact_mapping(line))
    text = json.dumps(line, default=_shown) if format == "json" else _console(line)
    with _lock:
        stream.write(text + "\n")
        stream.flush()


def _console(line: dict[str, Any]) -> str:
    exception = line.pop("exception", None)
    first = (
        str(line.pop("timestamp")),
        f"[{line.pop('level').ljust(_LEVEL_WIDTH)}]",
        str(line.pop("event")).ljust(_EVENT_WIDTH),
        f"[{line.pop('logger', '')}]",
    )
    text = " ".join([*first, *(f"{name}={_text(value)}" for name, value in line.items())]).rstrip(" ")
    return text if exception is None else f"{text}\n{exception}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) and not _QUOTED & set(value) else repr(value)


def _shown(value: Any) -> Any:
    own = getattr(value, "__structlog__", None)
    return own() if callable(own) else repr(value)


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat() + "Z"
