"""Error envelopes into an SQLite table: a sink that the config can name, in the one file that such a sink takes.

`SqliteErrorTable` is declared and opens nothing; the engine asks it for its partition, which holds the connection.
"""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any, ClassVar

import msgspec

from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorEnvelope, ErrorKind
from loom.streaming.bytewax import RuntimeSinkBinding, SinkBuildContext
from loom.streaming.kafka import Headers

__all__ = ["ErrorTableSettings", "SqliteErrorTable"]


class ErrorTableSettings(LoomFrozenStruct):
    """The section `streaming.sinks.<name>`, without `type: sqlite_error_table`."""

    #: the database file; its folder must be there
    path: str
    table: str = "errors"
    #: the kinds of errors to take; all of them where none is named
    kinds: tuple[ErrorKind, ...] = ()
    #: how long to wait for another program that writes to the database
    busy_timeout_ms: int = 5000


class SqliteErrorTable:
    """Keeps errors in an SQLite table, a row for each, whatever is repeated.

    >>> runner.register_sink(SqliteErrorTable)  # doctest: +SKIP
    """

    sink_type: ClassVar[str] = "sqlite_error_table"
    config_type: ClassVar[type] = ErrorTableSettings

    def __init__(self, settings: ErrorTableSettings) -> None:
        self._settings = settings

    @classmethod
    def build_binding(cls, cfg: ErrorTableSettings, ctx: SinkBuildContext) -> RuntimeSinkBinding:  # noqa: ARG003
        """The sink for one section."""
        return RuntimeSinkBinding("errors", cls(cfg), cfg.kinds)

    def build_partition(
        self,
        config: Any,
        worker_index: int,
        worker_count: int,
        bridge: Any | None = None,
        session_manager: Any | None = None,
    ) -> _ErrorTable:
        """Open the database, and make the table where there is none. Raises `OSError` when it cannot be opened."""
        return _ErrorTable(self._settings)


_COLUMNS = (
    "record",
    "step",
    "child",
    "kind",
    "reason",
    "error_type",
    "path",
    "payload_type",
    "topic",
    "partition",
    "offset",
    "timestamp_ms",
    "key",
    "value",
    "headers",
)


class _ErrorTable:
    """The opened table. What `write_batch` takes is in the database when `flush` returns, all of it or nothing."""

    def __init__(self, settings: ErrorTableSettings) -> None:
        table = '"' + settings.table.replace('"', '""') + '"'
        names = ", ".join(f'"{name}"' for name in _COLUMNS)
        self._insert = f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({', '.join('?' * len(_COLUMNS))})"
        self._rows: list[tuple[Any, ...]] = []
        try:
            self._connection = sqlite3.connect(
                settings.path,
                timeout=settings.busy_timeout_ms / 1000,
                # A transaction that begins to read and then wants to write may be refused at once; this one waits.
                isolation_level="IMMEDIATE",
                # One thread writes, but another may close what a failed run has left open.
                check_same_thread=False,
            )
            # Readers do not hold up the writer, and the other way round; FULL outlives a power failure.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table} ({names}, "
                '"written_at" DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY ("record", "step", "child"))'
            )
            self._connection.commit()
        except sqlite3.Error as error:
            raise OSError(f"the error table {settings.path} cannot be opened: {error}") from error

    def write_batch(self, items: list[ErrorEnvelope[Any]]) -> None:
        """Keep the rows. The database is not touched: a lock held for a whole epoch would keep everybody else out."""
        self._rows += map(_row, items)

    def flush(self) -> None:
        """Write and commit. An error here ends the run, and the records of these rows are read again."""
        if not self._rows:
            return
        with self._connection:
            self._connection.executemany(self._insert, self._rows)
        self._rows.clear()

    def close(self) -> None:
        """Close the database. What was not flushed has not been committed, so it is not written either."""
        self._connection.close()


def _row(envelope: ErrorEnvelope[Any]) -> tuple[Any, ...]:
    source = envelope.source
    return (
        _record_id(envelope),
        envelope.step_id or "",
        envelope.index,
        envelope.kind.value,
        _storable(envelope.reason),
        envelope.error_type,
        ".".join(map(str, envelope.path)),
        envelope.payload_type,
        source.topic if source is not None else None,
        source.partition if source is not None else None,
        source.offset if source is not None else None,
        source.timestamp_ms if source is not None else None,
        source.key if source is not None else None,
        source.value if source is not None else None,
        # Pairs of name and base64, so that the very record can be made again.
        msgspec.json.encode(Headers.of(source.headers).pairs).decode() if source is not None else None,
    )


def _record_id(envelope: ErrorEnvelope[Any]) -> str:
    """What is the same whenever the record is processed again."""
    source = envelope.source
    if source is not None and source.offset is not None:
        return f"{source.topic}:{source.partition}:{source.offset}"
    if envelope.original_message is not None:
        return envelope.original_message.meta.message_id
    # Bytes out of nowhere, which only a source of one's own can bring: rather two rows than one that hides the other.
    return uuid.uuid4().hex


def _storable(text: str) -> str:
    """Text as UTF-8 can hold it: a reason may quote anything, and one row must not stop the flow forever."""
    return text.encode("utf-8", "replace").decode()
