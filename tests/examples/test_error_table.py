"""The error table: a row for each error, durable before anything is confirmed, once however often the record is read."""

from __future__ import annotations

import sqlite3
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from bytewax.testing import TestingSink

from loom.core.config import ConfigContext, ConfigError
from loom.examples import error_table
from loom.examples.error_table.flow import Booking, flow
from loom.examples.error_table.sink import ErrorTableSettings, SqliteErrorTable
from loom.streaming import (
    ErrorEnvelope,
    ErrorKind,
    FromTopic,
    IntoSink,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    SinkPartition,
    StreamFlow,
    StreamingRunner,
    step,
)
from loom.streaming.bytewax import FlowFailedError
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.flow_process import FlowProcess
from tests.support.running import all_done, causes, config_for, content, in_memory, positions, produce, run_until
from tests.support.waiting import LONG_S

CONFIG = Path(error_table.__path__[0]) / "config.yaml"
CONVERSION = {"rates": {"EUR": 1.0, "USD": 0.5}}
#: what the walk through the example sends
INVOICES = (
    b'{"number": 1, "texts": ["tea", "air"], "amounts": [4.5, 0]}',
    b'{"number": 2, "texts": ["silk"], "amounts": [90], "currency": "CNY"}',
    b"no invoice",
)


def invoices(*values: bytes) -> list[KafkaRecord]:
    return [KafkaRecord("invoices", b"k", value, {"h": b"1"}, 0, at, 1_000 + at) for at, value in enumerate(values)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "errors.db"


def rows(path: Path, columns: str = "record, step, child, kind, reason", table: str = "errors") -> list[Any]:
    """What another process sees: only what has been committed."""
    if not path.exists():
        return []
    reader = sqlite3.connect(path)
    try:
        return reader.execute(f'SELECT {columns} FROM "{table}" ORDER BY record, step, child').fetchall()
    except sqlite3.OperationalError:  # the table is not there yet
        return []
    finally:
        reader.close()


def sink(path: Path, **more: Any) -> SqliteErrorTable:
    return SqliteErrorTable(ErrorTableSettings(str(path), **more))


def run_with(table: SqliteErrorTable, source: list[Any], declared: StreamFlow[Any, Any] = flow, **build: Any) -> Any:
    config = config_for(conversion=CONVERSION)
    return in_memory(declared, source, config=config, error_sinks=dict.fromkeys(ErrorKind, table), **build)


def test_it_is_a_sink() -> None:
    assert isinstance(sink(Path("x")), IntoSink)


def test_every_error_is_a_row_and_its_neighbours_go_on(path: Path) -> None:
    ran = run_with(sink(path), invoices(*INVOICES))
    assert ran.payloads() == [Booking(1, "tea", 4.5)]
    assert rows(path) == [
        ("invoices:0:0", "invoices.positive", "1", "business", "air is worth 0.0"),
        ("invoices:0:1", "invoices.convert", "0", "task", "'CNY'"),
        ("invoices:0:2", "invoices.source", "", "wire", "JSON is malformed: invalid character (byte 4)"),
    ]


def test_the_walk_of_the_readme_shows_what_really_stands_there(path: Path) -> None:
    run_with(sink(path), invoices(*INVOICES))
    told = (CONFIG.parent / "README.md").read_text(encoding="utf-8")
    for row in rows(path):
        assert "\n" + "|".join(row) + "\n" in told
    for invoice in INVOICES:
        assert "\n" + invoice.decode() + "\n" in told


def test_a_row_holds_the_record_so_that_it_can_be_sent_again(path: Path) -> None:
    run_with(sink(path), invoices(*INVOICES))
    columns = "topic, partition, offset, timestamp_ms, key, value, path, payload_type, error_type, headers"
    task = rows(path, columns)[1]
    assert task[:6] == ("invoices", 0, 1, 1_001, b"k", INVOICES[1])
    assert task[6:9] == ("2", "loom.examples.error_table.flow.Line", "builtins.KeyError")
    assert [(name, b64decode(value)) for name, value in msgspec.json.decode(task[9])] == [("h", b"1")]


def test_a_record_that_is_processed_again_writes_its_rows_over(path: Path) -> None:
    two_bad = b'{"number": 3, "texts": ["a", "b", "c"], "amounts": [0, -1, 2]}'
    for _ in range(2):
        run_with(sink(path), invoices(two_bad, *INVOICES))
    assert len(rows(path)) == 5
    assert [row[2] for row in rows(path) if row[0] == "invoices:0:0"] == ["0", "1"]


def test_messages_that_came_from_no_topic_are_told_apart_by_their_ids(path: Path) -> None:
    from loom.examples.error_table.flow import Invoice

    bad = Invoice(1, ("air",), (0.0,))
    source = [Message(bad, MessageMeta(f"mine-{n}")) for n in (1, 2)]
    for _ in range(2):
        run_with(sink(path), source)
    assert [row[0] for row in rows(path)] == ["mine-1", "mine-2"]


def test_a_reason_that_is_no_text_does_not_stop_the_flow(path: Path) -> None:
    @step
    def strange(invoice: Any) -> Any:
        raise ValueError("half a pair: \ud83e")

    declared = StreamFlow("strange", flow.source, Process(strange), IntoTopic("bookings"))
    run_with(sink(path), invoices(INVOICES[0]), declared)
    assert [row[4] for row in rows(path)] == ["half a pair: ?"]


def test_a_table_may_have_any_name(path: Path) -> None:
    run_with(sink(path, table='bad "news"; DROP TABLE x'), invoices(INVOICES[1]))
    reader = sqlite3.connect(path)
    assert [name for (name,) in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")] == [
        'bad "news"; DROP TABLE x'
    ]
    reader.close()


def envelope(offset: int) -> ErrorEnvelope[Any]:
    return ErrorEnvelope(
        ErrorKind.TASK, "no", step_id="f.s", source=KafkaRecord("t", None, b"", {}, 0, offset), index=""
    )


def test_rows_are_there_when_flush_returns_and_not_before(path: Path) -> None:
    part = sink(path).build_partition(None, 0, 1)
    assert isinstance(part, SinkPartition)
    part.write_batch([envelope(1)])
    part.write_batch([envelope(2)])
    assert rows(path) == []
    part.flush()
    assert len(rows(path)) == 2
    part.write_batch([envelope(3)])
    part.close()
    assert len(rows(path)) == 2


def test_a_flush_that_fails_writes_nothing_and_can_be_repeated(path: Path) -> None:
    part = sink(path, busy_timeout_ms=20).build_partition(None, 0, 1)
    part.write_batch([envelope(1), envelope(2)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        part.flush()
    other.execute("ROLLBACK")
    other.close()
    part.flush()
    assert len(rows(path)) == 2
    part.close()


def test_a_flush_writes_all_or_nothing(path: Path) -> None:
    part = sink(path).build_partition(None, 0, 1)
    part.write_batch([envelope(1), envelope(2**70), envelope(3)])
    with pytest.raises(OverflowError):
        part.flush()
    assert rows(path) == []
    part.close()


def test_what_was_flushed_is_not_written_again(path: Path) -> None:
    part = sink(path).build_partition(None, 0, 1)
    part.write_batch([envelope(1)])
    part.flush()
    reader = sqlite3.connect(path)
    reader.execute("DELETE FROM errors")
    reader.commit()
    reader.close()
    part.write_batch([envelope(2)])
    part.flush()
    assert [row[0] for row in rows(path)] == ["t:0:2"]
    part.close()


def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"nowhere/errors\.db cannot be opened"):
        sink(tmp_path / "nowhere" / "errors.db").build_partition(None, 0, 1)


# On a broker


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("invoices", "bookings"):
        broker.create_topic(topic)
    return broker.bootstrap


def config_of(bootstrap: str, path: Path, **section: Any) -> dict[str, Any]:
    made = config_for(bootstrap, consumer={"delivery": "at_least_once"}, conversion=CONVERSION)
    made["streaming"]["sinks"] = {"failures": {"type": "sqlite_error_table", "path": str(path), **section}}
    return made


def runner(bootstrap: str, path: Path, **section: Any) -> StreamingRunner:
    made = StreamingRunner.from_dict(flow, config_of(bootstrap, path, **section))
    made.register_sink(SqliteErrorTable)
    return made


def test_the_config_that_ships_with_it_is_one(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("ERRORS_DB", str(path))
    made = StreamingRunner.from_context(flow, config=ConfigContext.from_yaml(CONFIG))
    made.register_sink(SqliteErrorTable)
    prepared = made.prepare_run()
    assert prepared.plan.warnings == ()
    made.shutdown()
    assert not path.exists()


def test_rows_are_durable_while_the_flow_runs_and_before_positions_are_confirmed(bootstrap: str, path: Path) -> None:
    produce(bootstrap, "invoices", *INVOICES)
    seen: list[tuple[int, int]] = []

    def confirmed(counts: Any) -> bool:
        seen.append((positions(bootstrap, "invoices").get(0, 0), len(rows(path))))
        return seen[-1][0] == 3

    run_until(runner(bootstrap, path), confirmed)
    assert all(there >= min(position, 3) for position, there in seen)
    assert [row[0] for row in rows(path)] == ["invoices:0:0", "invoices:0:1", "invoices:0:2"]
    assert len(content(bootstrap, "bookings")["bookings"]) == 1


def test_nothing_is_confirmed_when_the_database_refuses_and_the_next_run_makes_up_for_it(
    bootstrap: str, path: Path
) -> None:
    produce(bootstrap, "invoices", *INVOICES)
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("PRAGMA journal_mode = WAL")
    locked: list[bool] = []

    @step
    def lock(invoice: Any) -> Any:
        if not locked:
            holder.execute("BEGIN IMMEDIATE")
            locked.append(True)
        return invoice

    declared = StreamFlow("invoices", flow.source, Process(lock, *flow.process), flow.output)
    made = StreamingRunner.from_dict(declared, config_of(bootstrap, path, busy_timeout_ms=20))
    made.register_sink(SqliteErrorTable)
    with pytest.raises(FlowFailedError, match="database is locked") as failed:
        made.run()
    assert any(isinstance(cause, sqlite3.OperationalError) for cause in causes(failed.value))
    assert positions(bootstrap, "invoices")[0] == 0
    holder.execute("ROLLBACK")
    holder.close()
    assert rows(path) == []

    run_until(runner(bootstrap, path), all_done(3))
    assert positions(bootstrap, "invoices")[0] == 3
    assert len(rows(path)) == 3


def test_a_wrong_key_is_told_by_its_place(bootstrap: str, path: Path) -> None:
    with pytest.raises(ConfigError, match=r"streaming\.sinks\.failures\.tabel.*`table`"):
        runner(bootstrap, path, tabel="x").prepare_run()


def test_two_tables_share_the_kinds(bootstrap: str, path: Path) -> None:
    produce(bootstrap, "invoices", *INVOICES)
    config = config_of(bootstrap, path, kinds=["wire"])
    others = {"type": "sqlite_error_table", "path": str(path), "table": "others"}
    config["streaming"]["sinks"]["others"] = {**others, "kinds": ["task", "business", "routing"]}
    made = StreamingRunner.from_dict(flow, config)
    made.register_sink(SqliteErrorTable)
    run_until(made, all_done(3))
    assert [row[3] for row in rows(path)] == ["wire"]
    assert [row[3] for row in rows(path, table="others")] == ["business", "task"]


SLOW = '''
"""The flow of the example, slow enough to be killed in the middle."""

import time

from loom.examples.error_table.flow import Invoice, flow
from loom.streaming import Process, StreamFlow, step


@step
def dawdle(invoice: Invoice) -> Invoice:
    time.sleep(0.002)
    return invoice


slow = StreamFlow("invoices", flow.source, Process(dawdle, *flow.process), flow.output)
'''


def until(true: Callable[[], bool], flow: FlowProcess, timeout: float = LONG_S) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert flow.alive, flow.tail()
        assert time.monotonic() < deadline, flow.tail()
        time.sleep(0.002)


@pytest.mark.slow
def test_a_flow_that_is_killed_again_and_again_loses_no_row_and_doubles_none(
    bootstrap: str, path: Path, tmp_path: Path
) -> None:
    count, kills = 600, 3
    values = [
        b'{"number":%d,"texts":["good","bad"],"amounts":[%d,%d]}' % (n, n + 1, -1 if n % 2 else 5) for n in range(count)
    ]
    produce(
        bootstrap,
        "invoices",
        *(KafkaRecord("invoices", None, value, partition=n % 4) for n, value in enumerate(values)),
    )
    config = config_of(bootstrap, path)
    config["kafka"]["consumer"]["batch_size"] = 10
    (tmp_path / "slow_flow.py").write_text(SLOW)
    (tmp_path / "loom.yaml").write_text(yaml.safe_dump(config))
    process = FlowProcess(
        "slow_flow:slow",
        config=tmp_path / "loom.yaml",
        directory=tmp_path,
        arguments=("--sink", "loom.examples.error_table.sink:SqliteErrorTable"),
    )
    with process:
        for _ in range(kills):
            before = len(rows(path))
            process.start()
            # Right behind a flush, so that what it wrote is often not confirmed yet.
            until(lambda before=before: len(rows(path)) > before, process)
            assert sum(positions(bootstrap, "invoices").values()) < count
            process.sigkill()
        process.start()
        process.await_positions(bootstrap, "readers", "invoices", count)
        process.sigterm()
        assert process.wait(LONG_S) == 0, process.output()

    expected = Counter(n for n in range(count) if n % 2)
    found = rows(path, "value, child, kind")
    assert Counter(msgspec.json.decode(value)["number"] for value, _, _ in found) == expected
    assert {(child, kind) for _, child, kind in found} == {("1", "business")}
    booked = Counter(
        (booking["invoice"], booking["text"])
        for booking in (
            msgspec.json.decode(record.value or b"") for record in content(bootstrap, "bookings")["bookings"]
        )
    )
    assert set(booked) == {(n, "good") for n in range(count)} | {(n, "bad") for n in range(count) if not n % 2}


def test_a_run_that_fails_elsewhere_writes_no_row_that_was_not_flushed(path: Path) -> None:
    class Full(TestingSink[Any]):
        def build(self, *arguments: Any) -> Any:
            raise OSError("no space left")

    with pytest.raises(BaseException):  # noqa: B017 - the engine's own
        run_with(sink(path), invoices(*INVOICES), sink=Full([]))
    assert rows(path) == []


def test_the_source_of_the_example_is_one_topic() -> None:
    assert isinstance(flow.source, FromTopic)
