"""`loom dlq`: what it shows of dead letters. Replaying and purging need a real broker (`tests/kafka`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from loom.cli.dlq import LetterFilter, moment
from loom.cli.exit_codes import Exit
from loom.streaming import ErrorEnvelope, ErrorKind
from loom.streaming.kafka import EmbeddedBroker, Headers, KafkaRecord
from loom.streaming.kafka.dead_letter import error_headers
from loom.streaming.kafka.dead_letters import letter_reader
from tests.cli.conftest import Loom, Told
from tests.support.running import produce

#: (command, arguments…) -> what it said
Dlq: TypeAlias = Callable[..., Told]
TIME = 1_700_000_000_000


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        for topic in ("errors", "foreign", "numbers", "out", "refused"):
            broker.create_topic(topic)
        produce(
            broker.bootstrap,
            "errors",
            *LETTERS,
        )
        said = [("__connect.errors.topic", b"numbers"), ("__connect.errors.exception.message", b"no schema")]
        foreign = KafkaRecord("foreign", None, b"x", Headers(said))
        produce(broker.bootstrap, "foreign", foreign, KafkaRecord("foreign", None, b"y"))
        yield broker


def letter(number: int, kind: ErrorKind, reason: str, error_type: str, value: bytes | None = None) -> KafkaRecord:
    source = KafkaRecord("numbers", b"k%d" % number, value or b'{"n":-%d}' % number, {"h": b"1"}, 2, number, TIME)
    step, at = ("everything.positive", "flows.py:24") if kind is ErrorKind.TASK else ("everything.source", None)
    envelope = ErrorEnvelope(kind, reason, step_id=step, path=(0,), error_type=error_type, source=source, at=at)
    headers = error_headers(envelope, "everything")
    return KafkaRecord("errors", source.key, source.value, headers, 0, timestamp_ms=TIME + number * 60_000)


LETTERS = [
    *(letter(n, ErrorKind.TASK, f"{n} is negative", "ValueError") for n in range(3)),
    letter(3, ErrorKind.WIRE, "no JSON", "msgspec.DecodeError", value=b"{"),
]


@pytest.fixture
def dlq(loom: Loom, broker: EmbeddedBroker) -> Dlq:
    config = loom.config(bootstrap=broker.bootstrap)

    def run(command: str, *arguments: str) -> Told:
        return loom("dlq", command, "flows:everything", "-c", config, *arguments)

    return run


def test_letters_are_counted_by_what_they_say(dlq: Dlq) -> None:
    told = dlq("list", "--json")
    groups = json.loads(told.out)
    assert [(one["kind"], one["step"], one["type"], one["reason"], one["letters"]) for one in groups] == [
        ("task", "everything.positive", "ValueError", "# is negative", 3),
        ("wire", "everything.source", "DecodeError", "no JSON", 1),
    ]
    assert (groups[0]["first"], groups[0]["last"], groups[0]["replayed"]) == (TIME, TIME + 120_000, 0)
    shown = dlq("list", "--by", "day")
    assert "2023-11-14" in shown.out
    assert shown.out.endswith("4 dead letters, 4 of them not replayed\n")


@pytest.mark.parametrize(
    ("chosen", "letters"),
    [
        (LetterFilter(), 4),
        (LetterFilter(kinds=("wire",)), 1),
        (LetterFilter(kinds=("wire", "task")), 4),
        (LetterFilter(steps=("everything.positive",)), 3),
        (LetterFilter(types=("DecodeError",)), 1),
        (LetterFilter(types=("msgspec.DecodeError",)), 1),
        (LetterFilter(types=("Error",)), 0),
        (LetterFilter(reason="^[12] is"), 2),
        (LetterFilter(since_ms=moment("2023-11-14T22:15:00Z", "--since")), 2),
        (LetterFilter(until_ms=moment("2023-11-14T22:15:00Z", "--until")), 2),
        (LetterFilter(partition=1), 0),
    ],
)
def test_letters_are_chosen_by_what_they_say(chosen: LetterFilter, letters: int) -> None:
    read = letter_reader()
    assert sum(chosen.takes(read(one)) for one in LETTERS) == letters


def test_a_letter_is_shown_with_its_record_and_its_place_in_the_flow(dlq: Dlq) -> None:
    told = dlq("show", "--partition", "0", "--offset", "1")
    assert told.code == Exit.DONE, told.err
    for line in (
        "errors[0]@1  2023-11-14T22:14:20.000Z  by loom, not replayed",
        "  failed   task in everything.positive",
        "  because  1 is negative",
        "  raised   ValueError at flows.py:24",
        "  record   numbers[2]@1  2023-11-14T22:13:20.000Z",
        "  key      k1",
        "  header   h: 1",
        '  value    {"n":-1}  (Number)',
    ):
        assert line in told.out.splitlines()
    (marked,) = [line for line in told.out.splitlines() if line.startswith("  -->")]
    assert "everything.positive (function): Number -> Number" in marked
    document = json.loads(dlq("show", "--offset", "3", "--json").out)
    assert (document["kind"], document["value"], document["read_as"]) == ("wire", "{", "text")
    assert document["problem"].startswith("is no Number")


def test_what_was_exported_can_be_produced_again(loom: Loom, broker: EmbeddedBroker, dlq: Dlq) -> None:
    broker.create_topic("copies")
    (loom.directory / "letters.jsonl").write_text(dlq("export", "--kind", "task").out)
    arguments = ("letters.jsonl", "--records", "-b", broker.bootstrap)
    assert loom("topics", "produce", "copies", *arguments).out == "3 records written to copies\n"
    found = [
        json.loads(line) for line in loom("topics", "tail", "copies", "-b", broker.bootstrap, "--json").out.splitlines()
    ]
    assert sorted((one["key"], one["value"], one["timestamp_ms"]) for one in found) == [
        (f"k{n}", f'{{"n":-{n}}}', TIME) for n in range(3)
    ]
    assert {str(one["headers"]) for one in found} == {"[['h', '1']]"}


def test_letters_of_connect_are_among_them(loom: Loom, broker: EmbeddedBroker) -> None:
    told = loom("dlq", "list", "--topic", "foreign", "-b", broker.bootstrap, "--json")
    groups = {one["kind"]: one["reason"] for one in json.loads(told.out)}
    assert groups == {"kafka connect": "no schema", "unknown": "-"}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("list", "--by", "colour"), "--by takes"),
        (("list", "--reason", "("), "--reason is no regular expression"),
        (("list", "--since", "yesterday"), "--since takes a time"),
        (("show", "--offset", "99"), "there is no such dead letter"),
        (("replay", "--into-step", "--to", "numbers"), "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_one_message(dlq: Dlq, command: tuple[str, ...], says: str) -> None:
    told = dlq(*command)
    assert told.code == Exit.USAGE
    assert says in told.messages[0]
    assert "Traceback" not in told.err


def test_a_flow_without_dead_letters_says_so(loom: Loom, broker: EmbeddedBroker) -> None:
    told = loom("dlq", "list", "flows:numbers", "-c", loom.config(bootstrap=broker.bootstrap))
    assert told.code == Exit.USAGE
    assert "writes no dead letters" in told.messages[0]


def test_a_dry_run_says_what_goes_where_and_what_stays(dlq: Dlq) -> None:
    told = dlq("replay", "--max-failures", "1")
    assert told.code == Exit.DONE, told.err
    assert told.out == "4 to numbers\nnothing was replayed: add --execute to do it\n"
    into = dlq("replay", "--into-step", "--kind", "task")
    assert into.code == Exit.FAILED
    assert "3 cannot be replayed: its flow does not look for such records: set kafka.consumer.replay_steps" in into.out
