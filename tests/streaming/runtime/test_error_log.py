"""Failed records in the log: the first of each kind and step whole, the others counted; payloads never."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, FromTopic, IntoTopic, Process, StreamFlow, step
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.error_log import ErrorLog
from tests.support.running import in_memory, into_topics, records

PLACE = TopicPartitionOffset("numbers", 0, 3)


class Number(LoomFrozenStruct):
    n: int


@step
def misspelt(number: Number) -> Number:
    return Number(number.m)  # type: ignore[attr-defined]


@step
def positive(number: Number) -> Number:
    if number.n < 0:
        raise RuleViolation("negative")
    return number


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("counting", FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"), IntoTopic("errors"))


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def failures(lines: list[Any], event: str = "record_failed") -> list[Any]:
    return [line for line in lines if line["event"] == event]


def here(text: str) -> str:
    """The place of a line of this file."""
    with open(__file__, encoding="utf-8") as file:
        return next(f"{__file__}:{number}" for number, line in enumerate(file, 1) if text in line)


def test_a_bug_in_a_step_is_logged_with_its_traceback_and_the_position_of_the_record(lines: list[Any]) -> None:
    into_topics(flow(misspelt), records(b'{"n": 1}', b'{"n": 2}', b'{"n": 3}'))
    (first,) = failures(lines)
    assert (first["kind"], first["step"], first["log_level"]) == ("task", "counting.misspelt", "error")
    assert (first["topic"], first["partition"], first["offset"]) == ("numbers", 0, 0)
    assert first["at"] == here("number.m")
    told = "".join(traceback.format_exception(*first["exc_info"]))
    assert "return Number(number.m)" in told
    assert "AttributeError" in told
    assert "loom/streaming" not in told


def test_each_kind_and_each_step_has_a_first_error_of_its_own(lines: list[Any]) -> None:
    into_topics(flow(positive, misspelt), records(b'{"n": -1}', b'{"n": -2}', b"x", b"y", b'{"n": 1}', b'{"n": 2}'))
    firsts = [(line["kind"], line["step"], line["offset"]) for line in failures(lines)]
    assert firsts == [
        ("business", "counting.positive", 0),
        ("wire", "counting.source", 2),
        ("task", "counting.misspelt", 4),
    ]


def test_payloads_stay_out_of_the_log(lines: list[Any]) -> None:
    into_topics(flow(misspelt), records(b'{"n": 815347}', b'{"n": "815347"}', b"815347"))
    assert len(failures(lines)) == 2
    told = [repr(line) + "".join(traceback.format_exception(*line.get("exc_info", (None,) * 3))) for line in lines]
    assert not [line for line in told if "815347" in line]


def test_repeats_are_counted_and_told_once_in_ten_seconds(lines: list[Any]) -> None:
    now = [100.0]
    log = ErrorLog(lambda: now[0])
    for second in range(25):
        now[0] = 100.0 + second
        for _ in range(4):
            log.notice(ErrorKind.TASK, "counting.misspelt", ValueError("no"), None, PLACE)
    assert len(failures(lines)) == 1
    again = failures(lines, "record_failed_again")
    assert [(line["kind"], line["step"], line["repeats"], line["total"]) for line in again] == [
        ("task", "counting.misspelt", 40, 41),
        ("task", "counting.misspelt", 40, 81),
    ]
    log.finish()
    assert failures(lines, "record_failed_again")[2]["repeats"] == 19
    log.finish()
    assert len(failures(lines, "record_failed_again")) == 3


def test_an_exception_that_cannot_be_told_is_logged_all_the_same(lines: list[Any]) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not now")

    ErrorLog().notice(ErrorKind.TASK, "counting.misspelt", Mute(), None, PLACE)
    (first,) = failures(lines)
    assert first["reason"] == "Mute"


def test_envelopes_tell_the_line_that_raised() -> None:
    ran = in_memory(flow(misspelt), records(b'{"n": 1}'))
    assert [envelope.at for envelope in ran.errors[ErrorKind.TASK]] == [here("number.m")]


def test_the_line_is_the_authors_though_a_library_raised() -> None:
    import json

    @step
    def parsed(number: Number) -> Number:
        return Number(len(json.loads("{")))  # raises far below

    ran = in_memory(flow(parsed), records(b'{"n": 1}'))
    assert [envelope.at for envelope in ran.errors[ErrorKind.TASK]] == [here("# raises far below")]


def test_no_line_is_told_where_no_code_of_the_authors_raised() -> None:
    topics, _ = into_topics(flow(positive), records(b"x"))
    (letter,) = topics["errors"]
    assert "x-error-at" not in dict(letter.headers)
