"""Results of a run over a file as files: one JSONL file for each topic, exact to the record after a restart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from loom.cli.records import plain, text_of
from loom.streaming.headers import Headers
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.output_table import OutputTable, TopicOutput

__all__ = ["FileWriters"]


class FileWriters:
    """In the place of the producers of a run.

    At the end of an epoch the files are durable, and `saved` is told of the offset and their sizes: a run that continues
    cuts them to these. A line is the value of a record; of a dead letter, and with `whole` of every record, it is the record
    as `loom topics produce --records` takes it.
    """

    def __init__(
        self,
        table: OutputTable,
        folder: Path,
        sizes: Mapping[str, int],
        saved: Callable[[int, dict[str, int]], None],
        *,
        whole: bool,
    ) -> None:
        self._names = table.slots.names
        self._whole = [whole or (isinstance(outlet, TopicOutput) and outlet.is_errors) for outlet in table.table]
        self._saved = saved
        self._files: dict[str, IO[bytes]] = {}
        for outlet, name in zip(table.table, self._names, strict=True):
            if isinstance(outlet, TopicOutput) and name not in self._files:
                file = (folder / f"{name}.jsonl").open("ab")
                file.truncate(sizes.get(name, 0))
                file.seek(0, os.SEEK_END)
                self._files[name] = file

    def write(self, results: Iterable[Any]) -> None:
        """Results are (slot, value, key, timestamp, headers, origin)."""
        for slot, value, key, timestamp_ms, headers, _ in results:
            line = _record(value, key, timestamp_ms, headers) if self._whole[slot] else _value(value)
            self._files[self._names[slot]].write(line + b"\n")

    def serve(self) -> None:
        """Nothing is in flight."""

    def flush(self, positions: Mapping[TopicPartition, int]) -> None:
        """The end of an epoch."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        if positions:
            self._saved(max(positions.values()), {name: file.tell() for name, file in self._files.items()})

    def close(self) -> None:
        """Close the files. What was not flushed is cut off by the run that continues."""
        for file in self._files.values():
            file.close()


def _value(value: bytes | None) -> bytes:
    if value is None:
        return b"null"
    try:
        msgspec.json.decode(value, type=msgspec.Raw)
    except msgspec.DecodeError:
        return msgspec.json.encode(plain(value).payload)
    # Nothing that JSON says is in a line break.
    return value if b"\n" not in value else msgspec.json.encode(msgspec.json.decode(value))


def _record(value: bytes | None, key: bytes | None, timestamp_ms: int | None, headers: Any) -> bytes:
    pairs = Headers.of(headers).pairs if headers else ()
    document = {
        "key": text_of(key),
        "headers": [[name, text_of(one)] for name, one in pairs],
        "value": text_of(value),
    }
    if timestamp_ms is not None:
        document["timestamp_ms"] = timestamp_ms
    return msgspec.json.encode(document)
