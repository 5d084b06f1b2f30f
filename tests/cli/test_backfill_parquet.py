"""`loom run --source FILE.parquet`: every type arrives as the payload says, and a run continues behind its last row."""

from __future__ import annotations

import datetime as dt
import json
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loom.cli.exit_codes import Exit, InputError
from loom.cli.parquet import parquet_rows
from loom.cli.record_lines import input_lines, parquet_lines
from tests.cli.conftest import Loom
from tests.cli.test_backfill import BACKFILL, SLOW, documents

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TYPED = """
import datetime as dt
from decimal import Decimal
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step


class Place(LoomFrozenStruct):
    city: str
    codes: list[int]


class Sale(LoomFrozenStruct):
    id: int
    large: int
    huge: int
    price: Decimal
    weight: float
    at: dt.datetime
    local: dt.datetime
    day: dt.date
    raw: bytes
    place: Place
    tags: dict[str, int]
    note: str | None


@step
def same(sale: Sale) -> Sale:
    assert sale.price == Decimal("1234567890123456789.01") or sale.id != 1
    return sale


flow = StreamFlow("sales", FromTopic("in", Sale), Process(same), IntoTopic("out"), IntoTopic("bad"))
"""

SALE: dict[str, Any] = {
    "id": 1,
    "large": 2**64 - 1,
    "huge": Decimal(98765432109876543210),
    "price": Decimal("1234567890123456789.01"),
    "weight": Decimal("1.50"),
    "at": 1_700_000_000_123_456_789,
    "local": dt.datetime(2024, 2, 29, 12, 0, 0, 5),
    "day": dt.date(2024, 2, 29),
    "raw": b"\xff\x00",
    "place": {"city": "Ávila", "codes": [1, 2]},
    "tags": [("a", 1), ("b", 2)],
    "note": None,
}
SCHEMA = pa.schema(
    [
        ("id", pa.int32()),
        ("large", pa.uint64()),
        ("huge", pa.decimal128(20, 0)),
        ("price", pa.decimal128(21, 2)),
        ("weight", pa.decimal128(5, 2)),
        ("at", pa.timestamp("ns", "UTC")),
        ("local", pa.timestamp("us")),
        ("day", pa.date32()),
        ("raw", pa.binary()),
        ("place", pa.struct([("city", pa.dictionary(pa.int32(), pa.string())), ("codes", pa.list_(pa.int64()))])),
        ("tags", pa.map_(pa.string(), pa.int64())),
        ("note", pa.string()),
    ]
)


def columns(rows: list[dict[str, Any]]) -> Any:
    place = SCHEMA.field("place").type
    plain = pa.struct([("city", pa.string()), place.field("codes")])
    arrays = [
        pa.array([row[field.name] for row in rows], plain).cast(field.type)
        if field.name == "place"
        else pa.array([row[field.name] for row in rows], field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def test_each_type_arrives_as_the_payload_says_and_bad_rows_are_dead_letters(loom: Loom) -> None:
    (loom.directory / "sales.py").write_text(TYPED)
    rows = [SALE, SALE | {"id": 2, "weight": None}, SALE | {"id": 3, "note": "yes"}]
    parquet.write_table(columns(rows), loom.directory / "sales.parquet")
    told = loom(
        "run", "sales:flow", "-c", loom.config(), "--source", "sales.parquet", "--output", "results", "--key", "id"
    )
    assert told.code == Exit.DONE, told.err
    assert told.out == "3 read, 2 written, 0 dropped, 1 failed; results: bad 1, out 2\n"
    first, third = documents(loom.directory / "results" / "out.jsonl")
    assert third["note"] == "yes"
    assert first == {
        "id": 1,
        "large": 2**64 - 1,
        "huge": 98765432109876543210,
        "price": "1234567890123456789.01",
        "weight": 1.5,
        "at": "2023-11-14T22:13:20.123456Z",
        "local": "2024-02-29T12:00:00.000005",
        "day": "2024-02-29",
        "raw": "/wA=",
        "place": {"city": "Ávila", "codes": [1, 2]},
        "tags": {"a": 1, "b": 2},
        "note": None,
    }
    (letter,) = documents(loom.directory / "results" / "bad.jsonl")
    assert json.loads(letter["value"])["weight"] is None
    assert ["x-error-offset", "1"] in letter["headers"]


def numbers_file(path: Path, rows: int) -> None:
    parquet.write_table(pa.table({"n": pa.array(range(rows), pa.int64())}), path, row_group_size=1_000)


@pytest.fixture
def counting(loom: Loom) -> Loom:
    (loom.directory / "counting.py").write_text(SLOW)
    numbers_file(loom.directory / "numbers.parquet", 9_000)
    loom.config(lambda made: made["streaming"]["runtime"].update(epoch_interval_ms=1))
    return loom


def test_a_run_that_is_killed_continues_and_every_row_has_one_result(
    counting: Loom, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*BACKFILL[:4], "--source", "numbers.parquet", "--output", "results")
    monkeypatch.setenv("KILLED_BY", str(int(signal.SIGKILL)))
    for killed_at in (4_321, 7_000):
        monkeypatch.setenv("KILLED_AT", str(killed_at))
        assert counting(*command).code == -signal.SIGKILL
    monkeypatch.setenv("KILLED_AT", "-1")
    last = counting(*command)
    assert last.code == Exit.DONE, last.err
    assert "continues behind line " in last.out
    assert [one["n"] for one in documents(counting.directory / "results" / "out.jsonl")] == list(range(9_000))
    assert "is done already" in counting(*command).out
    # The same first rows, and others behind them: it is another file.
    numbers_file(counting.directory / "numbers.parquet", 9_500)
    refused = counting(*command)
    assert refused.code == Exit.USAGE
    assert "as it was: begin again with --restart" in refused.messages[0]


@pytest.mark.parametrize("skip", [0, 1, 999, 1_000, 1_001, 2_500, 2_999, 3_000, 4_000])
def test_rows_that_are_done_are_passed_over_to_the_row(tmp_path: Path, skip: int) -> None:
    path = tmp_path / "numbers.parquet"
    numbers_file(path, 3_000)
    found = list(parquet_lines(str(path), skip))
    assert [json.loads(line.text)["n"] for line in found] == list(range(skip, 3_000))
    assert [line.where for line in found[:1]] == ([f"row {skip + 1} of {path}"] if skip < 3_000 else [])


def test_row_groups_that_are_done_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "numbers.parquet"
    numbers_file(path, 3_000)

    class Watched:
        def __init__(self) -> None:
            self.file = parquet.ParquetFile(path)
            self.groups: list[int] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def iter_batches(self, *, row_groups: list[int], **more: Any) -> Any:
            self.groups = row_groups
            return self.file.iter_batches(row_groups=row_groups, **more)

    watched = Watched()
    assert len(list(parquet_rows(watched, "numbers", 2_100))) == 900
    assert watched.groups == [2]


def test_a_text_that_is_not_utf_8_spoils_its_own_value_only(tmp_path: Path) -> None:
    path = tmp_path / "texts.parquet"
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"], pa.binary()).buffers())
    parquet.write_table(pa.table({"n": [1, 2, 3], "text": broken}), path)
    first, second, third = (json.loads(line.text) for line in input_lines(str(path)))
    assert (first, third) == ({"n": 1, "text": "a"}, {"n": 3, "text": "c"})
    assert second["n"] == 2
    assert "UnicodeDecodeError" in second["text"]["unreadable"]


def test_what_is_no_parquet_file_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("no")
    with pytest.raises(InputError, match="is no Parquet file"):
        list(input_lines(str(path)))
    with pytest.raises(InputError, match=r"nowhere\.parquet cannot be read"):
        list(input_lines(str(tmp_path / "nowhere.parquet")))
    monkeypatch.setattr("loom.cli.parquet.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs pyarrow, which is not installed; install loom-streaming\[parquet\]"):
        list(input_lines(str(path)))
