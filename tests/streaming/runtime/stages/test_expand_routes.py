"""`ExpandRoutes`: payloads of several types made of one, each type with a branch of its own."""

from __future__ import annotations

from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    ExpandRoutes,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    StreamFlow,
    Tombstone,
    step,
)
from tests.support.running import in_memory, into_topics, numbers, records


class Order(LoomFrozenStruct):
    n: int


class Line(LoomFrozenStruct):
    sku: int


class Refund(LoomFrozenStruct):
    cents: int


class Split:
    """As many lines as the order says, and a refund of each even one."""

    def expand(self, payload: Order) -> dict[type, list[Any]]:
        if payload.n == 13:
            raise ValueError("thirteen")
        return {
            Line: [Line(sku) for sku in range(payload.n)],
            Refund: [Refund(cents) for cents in range(payload.n) if cents % 2 == 0],
        }


@step
def not_one(line: Line) -> Line:
    if line.sku == 1:
        raise ValueError("one")
    return line


LINES = Process(not_one, IntoTopic[Any]("lines"))
REFUNDS = Process(IntoTopic[Any]("refunds"))


def flow(expander: Any = None, routes: Any = None, default: Any = None) -> StreamFlow[Any, Any]:
    node = ExpandRoutes(expander=expander or Split(), routes=routes or {Line: LINES, Refund: REFUNDS}, default=default)
    return StreamFlow("parting", FromTopic("numbers", Order), Process(node), errors=IntoTopic("errors"))


def test_each_type_takes_its_branch_and_ends_there_once() -> None:
    topics, counts = into_topics(flow(), numbers(1, 3))
    assert [record.value for record in topics["lines"]] == [b'{"sku":0}', b'{"sku":0}', b'{"sku":2}']
    assert [record.value for record in topics["refunds"]] == [b'{"cents":0}', b'{"cents":0}', b'{"cents":2}']
    assert (counts.accounted, counts.written, counts.failed) == (2, 1, {ErrorKind.TASK: 1})


def test_fewer_rows_than_routes_are_confirmed_all_the_same() -> None:
    _, counts = into_topics(flow(), numbers(0))
    assert (counts.read, counts.dropped) == (1, 1)


def test_a_failing_child_is_told_by_its_place_among_all_children() -> None:
    topics, _ = into_topics(flow(), numbers(3))
    (letter,) = topics["errors"]
    told = dict(letter.headers)
    assert (told["x-error-index"], told["x-error-step"], told["x-error-path"]) == (
        b"1",
        b"parting.line.not_one",
        b"0.0.0",
    )


def test_an_expander_that_raises_is_one_task_error_and_nothing_is_emitted() -> None:
    ran = in_memory(flow(), numbers(13))
    (envelope,) = ran.errors[ErrorKind.TASK]
    assert (envelope.step_id, envelope.reason) == ("parting.expand_routes", "thirteen")
    assert sum(map(len, ran.terminals.values())) == 0


def test_a_type_without_a_branch_is_a_routing_error_of_each_child() -> None:
    topics, _ = into_topics(flow(routes={Line: LINES}), numbers(3))
    found = [dict(letter.headers) for letter in topics["errors"]]
    assert [(told["x-error-kind"], told["x-error-index"]) for told in found] == [
        (b"task", b"1"),
        (b"routing", b"3"),
        (b"routing", b"4"),
    ]
    assert found[1]["x-error-reason"] == b"no branch for the type Refund and no default"


def test_a_type_without_a_branch_goes_to_the_default() -> None:
    topics, counts = into_topics(flow(routes={Line: LINES}, default=REFUNDS), numbers(1))
    assert [record.value for record in topics["refunds"]] == [b'{"cents":0}']
    assert counts.written == 1


def test_what_is_no_mapping_of_lists_is_one_task_error() -> None:
    class Wrong:
        def expand(self, payload: Order) -> Any:
            return [payload] if payload.n else {Line: 7}

    ran = in_memory(flow(Wrong()), numbers(0, 1))
    assert len(ran.errors[ErrorKind.TASK]) == 2


def test_a_child_may_be_a_whole_message_a_tombstone_but_not_none() -> None:
    class Odd:
        def expand(self, payload: Order) -> dict[type, list[Any]]:
            return {Refund: [Message(Refund(5), MessageMeta("m", key=b"mine")), Tombstone(), None]}

    topics, _ = into_topics(flow(Odd()), records(b'{"n":1}', key=b"k"))
    assert [(record.key, record.value) for record in topics["refunds"]] == [(b"mine", b'{"cents":5}'), (b"k", None)]
    (letter,) = topics["errors"]
    assert (dict(letter.headers)["x-error-kind"], dict(letter.headers)["x-error-index"]) == (b"task", b"2")


def test_a_tombstone_takes_the_default() -> None:
    topics, _ = into_topics(flow(default=REFUNDS), records(None))
    assert [record.value for record in topics["refunds"]] == [None]


def test_a_tombstone_without_a_default_is_a_routing_error() -> None:
    ran = in_memory(flow(), records(None))
    assert ran.reasons(ErrorKind.ROUTING) == ["a tombstone, which no branch takes, and no default"]


def test_a_tombstone_reaches_an_expander_that_names_it() -> None:
    class Sees:
        def expand(self, payload: Order | Tombstone) -> dict[type, list[Any]]:
            return {Refund: [Refund(-1 if isinstance(payload, Tombstone) else payload.n)]}

    topics, _ = into_topics(flow(Sees()), records(None, b'{"n":4}'))
    assert [record.value for record in topics["refunds"]] == [b'{"cents":-1}', b'{"cents":4}']
