"""The lines of a JSONL, CSV or Parquet file, checked before any is used: each becomes a record, or an error that names its line.

Read by `loom topics produce`, `loom dev` and a run over files.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from loom.cli.exit_codes import InputError
from loom.cli.parquet import is_parquet, open_parquet, parquet_rows
from loom.cli.records import record_from
from loom.core.counted import counted
from loom.streaming.headers import Headers
from loom.streaming.record import KafkaRecord

__all__ = ["InputLine", "LineReader", "input_lines", "jsonl_lines", "parquet_lines"]

_STDIN = "-"


class InputLine(NamedTuple):
    """One line: where it is, for a message, and the JSON on it."""

    where: str
    text: bytes
    #: it is the row of a table, whose values are all texts
    cells: bool = False


def input_lines(path: str) -> Iterator[InputLine]:
    """The lines of a file as JSON: `.csv` with a header line, `.parquet`, anything else JSONL; `-` is JSONL from standard input.

    A line that is empty is passed over. The columns of a CSV file are texts; an empty cell is left out. A line of a Parquet
    file is a row.

    Raises `InputError` for a file that cannot be read.
    """
    if path == _STDIN:
        yield from jsonl_lines(sys.stdin.buffer, "standard input")
        return
    if is_parquet(path):
        yield from parquet_lines(path)
        return
    try:
        with Path(path).open("rb") as file:
            yield from csv_lines(file, path) if path.lower().endswith(".csv") else jsonl_lines(file, path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def parquet_lines(path: str, skip: int = 0) -> Iterator[InputLine]:
    """Each row behind the first `skip` as a JSON object.

    Raises `InputError` for a file that cannot be read, or where the extra `parquet` is not installed.
    """
    with open_parquet(path) as file:
        for number, text in enumerate(parquet_rows(file, path, skip), skip + 1):
            yield InputLine(f"row {number} of {path}", text)


def jsonl_lines(lines: Iterable[bytes], name: str) -> Iterator[InputLine]:
    """One JSON document a line. Nothing is checked here."""
    for number, line in enumerate(lines, 1):
        text = line.rstrip(b"\r\n")
        if text.strip():
            yield InputLine(f"line {number} of {name}", text)


def csv_lines(file: IO[bytes], name: str) -> Iterator[InputLine]:
    """Each row as a JSON object of texts, under the names of the header line."""
    try:
        with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            rows = csv.reader(text, strict=True)
            header = next(rows, None)
            if header is None:
                return
            if len(set(header)) < len(header) or not all(header):
                raise InputError(f"the header line of {name} names a column twice, or not at all")
            for row in rows:
                where = f"line {rows.line_num} of {name}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{where} has {counted(len(row), 'cell')}, and the header line names {counted(len(header), 'column')}"
                    )
                cells = {column: cell for column, cell in zip(header, row, strict=True) if cell}
                yield InputLine(where, msgspec.json.encode(cells), cells=True)
    except (csv.Error, UnicodeError) as error:
        raise InputError(f"{name} is no CSV in UTF-8: {error}") from None


class LineReader:
    """Makes a record of a line.

    `key` names the field of the payload that becomes the record key. With `whole` a line describes a whole record, as
    `loom topics tail --json` prints it.
    """

    def __init__(self, topic: str, *, key: str | None = None, whole: bool = False) -> None:
        self._topic = topic
        self._key = key
        self._whole = whole

    def __call__(self, line: InputLine) -> KafkaRecord:
        """Raises `InputError` for a line that is no JSON, no record, or lacks its key."""
        try:
            found = msgspec.json.decode(line.text)
        except msgspec.DecodeError as error:
            raise InputError(f"{line.where} is no JSON: {error}") from None
        if self._whole:
            return record_from(found, self._topic, line.where)
        return KafkaRecord(self._topic, self._key_of(found, line.where), line.text, Headers())

    def _key_of(self, found: Any, where: str) -> bytes | None:
        if self._key is None:
            return None
        if not isinstance(found, dict) or self._key not in found:
            raise InputError(f"{where} has no field {self._key!r} for the key")
        value = found[self._key]
        return value.encode() if isinstance(value, str) else msgspec.json.encode(value)
