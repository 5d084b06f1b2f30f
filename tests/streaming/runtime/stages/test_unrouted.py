"""Errors of a kind without a route: the author chose between a run that ends and a record that is dropped, never silence."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    ErrorRoute,
    Fork,
    FromTopic,
    IntoTopic,
    Process,
    StreamFlow,
    StreamingRunner,
    step,
)
from loom.streaming.bytewax import FlowFailedError, UnroutedRecordError
from loom.streaming.kafka import EmbeddedBroker
from tests.support.running import causes, config_for, content, in_memory, into_topics, positions, produce, records


class Number(LoomFrozenStruct):
    n: int


class Broken(Exception):
    pass


@step
def positive(number: Number) -> Number:
    if number.n == 0:
        raise RuleViolation("zero")
    if number.n < 0:
        raise Broken("negative")
    return number


def even_only(number: Number) -> bool:
    return number.n % 2 == 0


def flow(unrouted: str = "fail", errors: Any = None) -> StreamFlow[Any, Any]:
    fork = Fork.by(even_only, {True: Process(IntoTopic("out"))})
    return StreamFlow(
        "checking", FromTopic("numbers", Number), Process(positive, fork), errors=errors, unrouted=unrouted
    )  # type: ignore[arg-type]


FAILURES = pytest.mark.parametrize(
    ("value", "kind", "step_id", "reason"),
    [
        (b"{", ErrorKind.WIRE, "checking.source", "Input data was truncated"),
        (b'{"n":1}', ErrorKind.ROUTING, "checking.fork", "no branch for False"),
        (b'{"n":-1}', ErrorKind.TASK, "checking.positive", "negative"),
        (b'{"n":0}', ErrorKind.BUSINESS, "checking.positive", "zero"),
    ],
    ids=["wire", "routing", "task", "business"],
)


@FAILURES
def test_an_unrouted_error_ends_the_run_and_names_kind_step_and_record(
    value: bytes, kind: ErrorKind, step_id: str, reason: str
) -> None:
    with pytest.raises(UnroutedRecordError) as ended:
        into_topics(flow(), records(b'{"n":2}', value))
    error = ended.value
    assert (error.flow, error.kind, error.step_id) == ("checking", kind, step_id)
    for told in (kind.value, step_id, "numbers[0]@1", reason):
        assert told in str(error)


def test_the_exception_of_the_step_is_the_cause(broker: EmbeddedBroker) -> None:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", b'{"n":-1}')
    runner = StreamingRunner.from_dict(flow(), config_for(broker.bootstrap, consumer={"delivery": "at_least_once"}))
    with pytest.raises(UnroutedRecordError) as ended:
        runner.run()
    assert isinstance(ended.value, FlowFailedError)
    assert isinstance(ended.value.__cause__, Broken)
    # Nothing behind it was confirmed, so the next run meets it again.
    assert positions(broker.bootstrap, "numbers")[0] == 0
    assert content(broker.bootstrap, "out") == {"out": []}


def test_under_the_engines_own_runner_the_cause_is_in_the_chain() -> None:
    with pytest.raises(BaseException) as ended:
        in_memory(flow(), records(b'{"n":-1}'), catch=())
    chain = causes(ended.value)
    assert [type(error) for error in chain if isinstance(error, UnroutedRecordError | Broken)] == [
        UnroutedRecordError,
        Broken,
    ]


@FAILURES
def test_a_dropped_error_is_counted_and_logged(
    value: bytes, kind: ErrorKind, step_id: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = in_memory(flow("drop"), records(b'{"n":2}', value, b'{"n":4}'), catch=())
    assert ran.payloads((1, 0, 0)) == [Number(2), Number(4)]
    assert ran.counts.failed == {kind: 1}
    assert ran.counts.errors == {(kind, step_id): 1}
    assert (ran.counts.read, ran.counts.written, ran.counts.dropped) == (3, 2, 0)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "record_dropped" in line]
    for told in (
        f"kind={kind.value}",
        f"step={step_id}",
        "topic=numbers",
        "partition=0",
        "offset=1",
        reason.split(maxsplit=1)[0],
    ):
        assert told in line


def test_only_the_kinds_without_a_route_are_dropped() -> None:
    routed = flow("drop", errors=ErrorRoute(ErrorKind.BUSINESS, IntoTopic("errors")))
    topics, counts = into_topics(routed, records(b'{"n":0}', b'{"n":-1}', b'{"n":2}'))
    assert (len(topics["errors"]), len(topics["out"])) == (1, 1)
    assert counts.failed == {ErrorKind.BUSINESS: 1, ErrorKind.TASK: 1}


def test_an_error_sink_is_a_route_of_its_kind() -> None:
    ran = in_memory(flow(), records(b'{"n":0}', b'{"n":2}'), catch=[ErrorKind.BUSINESS])
    assert ran.reasons(ErrorKind.BUSINESS) == ["zero"]
