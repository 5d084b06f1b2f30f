"""`loom run --source`: the flow over a file gives what it gives as a stream, and continues where it was stopped."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from loom.cli.exit_codes import Exit
from loom.cli.records import plain, record_document, record_from
from loom.examples.flights.data import raw_flights
from loom.examples.flights.flow import flow as flights
from loom.streaming.kafka import EmbeddedBroker, Headers, KafkaRecord
from loom.streaming.testing import BrokerTopics
from tests.cli.conftest import Loom

FLIGHTS = 1500
OUTPUTS = ("flights.newark", "flights.kennedy", "flights.laguardia", "flights.undecodable", "flights.rejected")

SLOW = """
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step
import os, signal


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    if number.n == int(os.environ.get("KILLED_AT", "-1")):
        os.kill(os.getpid(), int(os.environ["KILLED_BY"]))
    return number


flow = StreamFlow("counting", FromTopic("in", Number), Process(same), IntoTopic("out"), IntoTopic("bad"))
"""


def documents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_gives_the_records_that_its_stream_gives(loom: Loom) -> None:
    source = [
        KafkaRecord("flights.raw", key, value, {"h": b"1"}, 0, number, 1_000 + number)
        for number, (key, value) in enumerate(raw_flights(FLIGHTS))
    ]
    lines = (json.dumps(record_document(record, plain(record.value or b""))) for record in source)
    (loom.directory / "flights.jsonl").write_text("\n".join(lines) + "\n")
    section = {"brokers": "127.0.0.1:1", "group_id": "g", "delivery": "at_least_once"}
    config = {"kafka": {"consumer": section, "producer": {"brokers": "127.0.0.1:1"}}, "delays": {"late_after": 15}}
    (loom.directory / "config.yaml").write_text(json.dumps(config))
    told = loom(
        "run",
        "loom.examples.flights.flow:flow",
        "-c",
        "config.yaml",
        "--source",
        "flights.jsonl",
        "--output",
        "out",
        "--records",
    )
    assert told.code == Exit.DONE, told.err
    assert told.out.startswith(f"{FLIGHTS:,} read, ")

    with EmbeddedBroker() as broker:
        topics = BrokerTopics(broker)
        topics.create("flights.raw", *OUTPUTS)
        topics.produce_records(source)
        topics.run(flights, inputs=FLIGHTS, config={"delays": {"late_after": 15}})
        files = sorted((loom.directory / "out").glob("*.jsonl"))
        assert [path.stem for path in files if path.stat().st_size] == sorted(
            topic for topic in OUTPUTS if topics.read(topic)
        )
        for path in files:
            found = [record_from(one, path.stem, path.stem) for one in documents(path)]
            assert sorted(map(content, found)) == sorted(map(content, topics.read(path.stem))), path.stem


def content(record: KafkaRecord) -> str:
    """What a record holds; where it was read in its stream depends on its key."""
    pairs = [
        pair for pair in Headers.of(record.headers).pairs if pair[0] not in ("x-error-partition", "x-error-offset")
    ]
    return repr((record.key, record.value, pairs))


@pytest.fixture
def counting(loom: Loom) -> Loom:
    (loom.directory / "counting.py").write_text(SLOW)
    (loom.directory / "numbers.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(9_000)))
    loom.config(lambda made: made["streaming"]["runtime"].update(epoch_interval_ms=1))
    return loom


def numbers(loom: Loom, name: str = "out") -> list[int]:
    return [one["n"] for one in documents(loom.directory / "results" / f"{name}.jsonl")]


BACKFILL = ("run", "counting:flow", "-c", "loom.yaml", "--source", "numbers.jsonl", "--output", "results")


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_ends_early_continues_and_every_line_has_one_result(
    counting: Loom, monkeypatch: pytest.MonkeyPatch, by: signal.Signals
) -> None:
    monkeypatch.setenv("KILLED_BY", str(int(by)))
    for killed_at in (4_321, 7_000):
        monkeypatch.setenv("KILLED_AT", str(killed_at))
        ended = counting(*BACKFILL)
        assert ended.code == (-signal.SIGKILL if by is signal.SIGKILL else Exit.DONE), ended.err
    assert by is signal.SIGKILL or "the same command continues" in ended.out
    (counting.directory / "results" / "out.jsonl").open("a").write('{"n": "left by a run that was killed"}\n')
    monkeypatch.setenv("KILLED_AT", "-1")
    last = counting(*BACKFILL)
    assert last.code == Exit.DONE, last.err
    assert "continues behind line " in last.out
    assert numbers(counting) == list(range(9_000))
    assert "is done already" in counting(*BACKFILL).out
    assert numbers(counting) == list(range(9_000))
    with (counting.directory / "numbers.jsonl").open("a") as grown:
        grown.write('{"n": 9000}\n')
    assert counting(*BACKFILL).code == Exit.DONE
    assert numbers(counting) == list(range(9_001))
    again = counting(*BACKFILL, "--restart")
    assert again.out.startswith("9,001 read, 9,001 written")
    assert numbers(counting) == list(range(9_001))


def test_lines_that_do_not_fit_become_dead_letters_beside_the_others(counting: Loom) -> None:
    (counting.directory / "numbers.csv").write_text("n\n1\nx\n2\n")
    told = counting(*BACKFILL[:4], "--source", "numbers.csv", "--output", "results", "--key", "n")
    assert told.out == "3 read, 2 written, 0 dropped, 1 failed; results: bad 1, out 2\n"
    assert numbers(counting) == [1, 2]
    (letter,) = documents(counting.directory / "results" / "bad.jsonl")
    assert letter["value"] == '{"n":"x"}'
    assert ["x-error-offset", "1"] in letter["headers"]


def test_without_a_folder_results_go_to_their_topics(counting: Loom) -> None:
    with EmbeddedBroker() as broker:
        topics = BrokerTopics(broker)
        topics.create("out", "bad")
        counting.config(bootstrap=broker.bootstrap)
        (counting.directory / "few.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
        told = counting(*BACKFILL[:4], "--source", "few.jsonl")
        assert told.code == Exit.DONE, told.err
        assert sorted(json.loads(record.value or b"")["n"] for record in topics.read("out")) == [1, 2]
        assert "is done already" in counting(*BACKFILL[:4], "--source", "few.jsonl").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--source", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
        (("--source", "other.jsonl", "--output", "results"), "is of the flow 'counting' over numbers.jsonl as it was"),
        (("--output", "results"), "--output needs --source"),
        (("--source", "whole.jsonl", "--records", "--output", "new"), "line 1 of whole.jsonl is no record"),
    ],
)
def test_what_cannot_be_run_is_one_message(counting: Loom, arguments: tuple[str, ...], says: str) -> None:
    (counting.directory / "other.jsonl").write_text("1\n")
    (counting.directory / "whole.jsonl").write_text('{"n": 1}\n')
    (counting.directory / "numbers.jsonl").write_text('{"n": 1}\n')
    if "results" in arguments and "--source" in arguments:
        assert counting(*BACKFILL).code == Exit.DONE
    told = counting(*BACKFILL[:4], *arguments)
    assert told.code == Exit.USAGE
    assert says in told.messages[0]
    assert "Traceback" not in told.err
