"""The rows of a Parquet file as lines of JSON, a few thousand at a time. Needs the extra `parquet`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from loom.cli.exit_codes import InputError

__all__ = ["is_parquet", "open_parquet", "parquet_rows"]

#: rows that are in memory at once, beside what the reader buffers of a row group
_BATCH = 2000
#: decimals as numbers keep every digit, and fit payloads that take floats or whole numbers
_JSON = msgspec.json.Encoder(decimal_format="number", enc_hook=str)


def is_parquet(path: str | Path) -> bool:
    """Whether a file is taken for one, by its name."""
    return str(path).lower().endswith(".parquet")


def open_parquet(path: str) -> Any:
    """A Parquet file. Raises `InputError` where the extra is not installed, or for what is no such file."""
    if find_spec("pyarrow") is None:
        raise InputError(f"{path} needs pyarrow, which is not installed; install loom-streaming[parquet]")
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path} is no Parquet file: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def parquet_rows(file: Any, name: str, skip: int = 0) -> Iterator[bytes]:
    """Each row behind the first `skip` as a JSON object under the names of the columns.

    A null is null. Timestamps and times have microseconds, as `datetime` has; what is finer is cut off. Maps become objects,
    binary values base64. A value that cannot be read (text that is not UTF-8, say) becomes an object that says why.
    """
    import pyarrow as pa

    groups, first = _groups_behind(file, skip)
    try:
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=groups):
            if first + batch.num_rows <= skip:
                first += batch.num_rows
                continue
            wanted = batch.slice(max(0, skip - first))
            first += batch.num_rows
            yield from map(_JSON.encode, _documents(_coarse(wanted)))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name} cannot be read behind row {first:,}: {error}") from None


def _groups_behind(file: Any, skip: int) -> tuple[list[int], int]:
    """The row groups that hold rows behind the first `skip`, and how many rows precede them."""
    first = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows > skip:
            return list(range(group, file.num_row_groups)), first
        first += rows
    return [], first


def _coarse(batch: Any) -> Any:
    """The batch with times in microseconds: Python has nothing finer."""
    import pyarrow as pa

    columns = [
        column.cast(_microseconds(column.type), safe=False) if _is_fine(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _is_fine(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_timestamp(kind) or types.is_time(kind) or types.is_duration(kind)) and kind.unit == "ns"


def _microseconds(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.time64("us") if pa.types.is_time(kind) else pa.duration("us")


def _documents(batch: Any) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist(maps_as_pydicts="strict")  # type: ignore[no-any-return]
    except (ValueError, KeyError, TypeError):
        # One of them holds something that Python cannot. The others are as they are.
        names = batch.schema.names
        return [{name: _value(batch.column(name)[row]) for name in names} for row in range(batch.num_rows)]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py(maps_as_pydicts="strict")
    except (ValueError, KeyError, TypeError) as error:
        return {"unreadable": f"{type(error).__name__}: {error}"}
