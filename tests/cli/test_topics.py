"""`loom topics`: what it shows of a cluster, and what it writes to one. Creating needs a real broker (`tests/kafka`)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from loom.cli.exit_codes import Exit
from loom.cli.topics import needed_topics
from loom.streaming import ErrorKind, ErrorRoute, FromTopic, IntoTopic, Process, StreamFlow
from loom.streaming.compiler import compile_flow
from loom.streaming.kafka import EmbeddedBroker, Headers, KafkaRecord
from tests.cli.conftest import Loom
from tests.streaming.orders import Order
from tests.support.running import produce


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def records(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_topics_are_listed_for_people_and_for_scripts(loom: Loom, broker: EmbeddedBroker) -> None:
    partitions = broker.create_topic("listed")
    told = loom("topics", "list", "--brokers", broker.bootstrap)
    assert told.code == Exit.DONE
    assert any(line.split()[:2] == ["listed", str(partitions)] for line in told.out.splitlines())
    found = json.loads(loom("topics", "list", "-c", loom.config(bootstrap=broker.bootstrap), "--json").out)
    assert {"topic": "listed", "partitions": partitions, "replication": 1} in found


def test_what_was_produced_is_seen_again_byte_for_byte(loom: Loom, broker: EmbeddedBroker) -> None:
    broker.create_topic("again")
    broker.create_topic("copied")
    odd = KafkaRecord("again", b"\xff", b"\xfe\x00", Headers([("h", None), ("h", b"\xff"), ("", b"x")]), timestamp_ms=7)
    produce(broker.bootstrap, "again", odd, KafkaRecord("again", None, None), KafkaRecord("again", b"k", b'{"n": 1}'))
    seen = loom("topics", "tail", "again", "-b", broker.bootstrap, "--json")
    assert seen.code == Exit.DONE, seen.err
    (loom.directory / "all.jsonl").write_text(seen.out)

    written = loom("topics", "produce", "copied", "all.jsonl", "--records", "-b", broker.bootstrap)
    assert written.out == "3 records written to copied\n"
    copied = records(loom("topics", "tail", "copied", "--all", "-b", broker.bootstrap, "--json").out)

    def content(found: list[dict[str, object]]) -> list[str]:
        return sorted(json.dumps([one[name] for name in ("key", "value", "headers")]) for one in found)

    assert content(copied) == content(records(seen.out))
    assert next(one for one in copied if one["key"] == {"base64": "/w=="})["timestamp_ms"] == 7


def test_records_are_decoded_as_the_flow_reads_them(loom: Loom, broker: EmbeddedBroker) -> None:
    broker.create_topic("numbers")
    config = loom.config(bootstrap=broker.bootstrap)
    produce(
        broker.bootstrap,
        "numbers",
        KafkaRecord("numbers", b"7", b'{"n": 1, "more": 2}'),
        KafkaRecord("numbers", None, b'{"n": "x"}'),
    )
    told = loom("topics", "tail", "numbers", "--flow", "flows:numbers", "-c", config)
    assert 'key=7  {"n":1}' in told.out
    assert '{"n":"x"}  (is no Number: ' in told.out
    assert '"more":2' in loom("topics", "tail", "numbers", "--raw", "-c", config).out


def test_a_line_that_does_not_fit_the_flow_is_refused_before_any_is_written(loom: Loom, broker: EmbeddedBroker) -> None:
    broker.create_topic("strict")
    config = loom.config(lambda made: made["kafka"]["consumer"].update(topics=["strict"]), bootstrap=broker.bootstrap)
    (loom.directory / "in.jsonl").write_text('{"n": 1}\n\n{"n": "one"}\n')
    told = loom("topics", "produce", "strict", "in.jsonl", "--flow", "flows:numbers", "-c", config)
    assert told.code == Exit.USAGE
    assert told.messages[0].startswith("line 3 of in.jsonl is no Number: ")
    assert loom("topics", "tail", "strict", "-c", config).out == ""
    assert (
        loom("topics", "produce", "strict", "in.jsonl", "-c", config, "--key", "n").out
        == "2 records written to strict\n"
    )
    keys = sorted(str(one["key"]) for one in records(loom("topics", "tail", "strict", "-c", config, "--json").out))
    assert keys == ["1", "one"]


def test_the_cells_of_a_csv_file_become_objects(loom: Loom, broker: EmbeddedBroker) -> None:
    broker.create_topic("cells")
    (loom.directory / "in.csv").write_text('n,text\n1,"a, b"\n2,\n')
    assert loom("topics", "produce", "cells", "in.csv", "-b", broker.bootstrap, "--key", "n").code == Exit.DONE
    found = records(loom("topics", "tail", "cells", "-b", broker.bootstrap, "--json").out)
    assert sorted(str(one["payload"]) for one in found) == ["{'n': '1', 'text': 'a, b'}", "{'n': '2'}"]


def test_the_cells_of_a_csv_file_become_what_the_flow_reads(loom: Loom, broker: EmbeddedBroker) -> None:
    broker.create_topic("typed")
    config = loom.config(lambda made: made["kafka"]["consumer"].update(topics=["typed"]), bootstrap=broker.bootstrap)
    (loom.directory / "in.csv").write_text("n\n7\n")
    assert loom("topics", "produce", "typed", "in.csv", "--flow", "flows:numbers", "-c", config).code == Exit.DONE
    assert [one["value"] for one in records(loom("topics", "tail", "typed", "-c", config, "--json").out)] == ['{"n":7}']


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("tail", "nowhere"), Exit.ENVIRONMENT, "'nowhere'"),
        (("produce", "nowhere", "-"), Exit.ENVIRONMENT, "'nowhere'"),
        (("produce", "there", "bad.jsonl"), Exit.USAGE, "line 2 of bad.jsonl is no JSON"),
        (("produce", "there", "bad.jsonl", "--records"), Exit.USAGE, "line 1 of bad.jsonl is no record"),
        (("produce", "there", "good.jsonl", "--key", "id"), Exit.USAGE, "line 1 of good.jsonl has no field 'id'"),
        (("produce", "there", "none.jsonl"), Exit.USAGE, "none.jsonl cannot be read"),
        (("produce", "there", "torn.csv"), Exit.USAGE, "line 2 of torn.csv has 1 cell,"),
        (("create",), Exit.USAGE, "--brokers needs the names of topics"),
        (("create", "x", "--set", "retention"), Exit.USAGE, "--set takes NAME=VALUE"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    loom: Loom, broker: EmbeddedBroker, arguments: tuple[str, ...], code: Exit, says: str
) -> None:
    broker.create_topic("there")
    (loom.directory / "bad.jsonl").write_text('{"n": 1}\n{n}\n')
    (loom.directory / "good.jsonl").write_text('{"n": 1}\n')
    (loom.directory / "torn.csv").write_text("a,b\n1\n")
    told = loom("topics", *arguments, "--brokers", broker.bootstrap)
    assert told.code == code
    assert says in told.messages[0]
    assert "Traceback" not in told.err


def test_the_topics_that_a_flow_needs_are_those_that_it_names() -> None:
    flow = StreamFlow(
        "orders",
        FromTopic("orders.raw", Order),
        Process(IntoTopic("orders.copied", dlq="orders.refused")),
        errors=[
            ErrorRoute(ErrorKind.WIRE, IntoTopic("orders.errors")),
            ErrorRoute(ErrorKind.TASK, IntoTopic("orders.bad", dlq="orders.refused")),
        ],
    )
    consumer = {"brokers": "a:1", "group_id": "g", "topics": ["orders.v1", "orders.v2"]}
    producers = {"orders.bad": {"topic": "orders.errors"}, "orders.errors": {"topic": "orders.errors"}}
    config = {"kafka": {"consumer": consumer, "producer": {"brokers": "a:1"}, "producers": producers}}
    found = needed_topics(compile_flow(flow, config=config))
    assert [(one.name, one.uses, one.dead_letters) for one in found] == [
        ("orders.v1", ("source",), False),
        ("orders.v2", ("source",), False),
        ("orders.copied", ("output",), False),
        ("orders.errors", ("errors (wire)", "errors (task)"), True),
        ("orders.refused", ("dlq",), True),
    ]
