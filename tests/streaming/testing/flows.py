"""Flows of every kind of node, small enough to know what each has to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Drain,
    ErrorKind,
    ErrorRoute,
    ExpandRoutes,
    ExpandStep,
    Explode,
    ForEach,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    RecordStep,
    Route,
    Router,
    StreamFlow,
    msg,
    payload,
    step,
)


class Number(LoomFrozenStruct):
    n: int
    country: str = "ES"


class Shown(LoomFrozenStruct):
    __loom_message_type__ = "shown"
    text: str


class Total(LoomFrozenStruct):
    of: int


class Odd(LoomFrozenStruct):
    """Holds what JSON cannot."""

    what: Any


@step
def double(number: Number) -> Number:
    return Number(number.n * 2, number.country)


@step
def picky(number: Number) -> Number | None:
    """Refuses 13, breaks on 7, drops 0."""
    if number.n == 13:
        raise RuleViolation("unlucky")
    if number.n == 7:
        raise ZeroDivisionError("seven")
    return number if number.n else None


@step
def show(number: Number) -> Shown:
    return Shown(f"{number.country}{number.n}")


@step
def unencodable(number: Number) -> Odd:
    return Odd(object() if number.n == 2 else number.n)


class Tag(RecordStep[Number, Number]):
    """Looks at the message and changes its key and headers."""

    def execute(self, message: Message[Number]) -> Message[Number]:
        return message.with_key(f"k{message.payload.n % 3}").with_headers(tagged=b"yes")


class Repeat(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Iterable[Number]:
        for _ in range(message.payload.n % 3):
            yield message.payload


class Sizes(BatchStep[Number, Total]):
    """Each item of a batch becomes the size of its batch; 5 fails alone."""

    def execute(self, messages: list[Message[Number]]) -> list[Any]:
        return [
            ValueError("five") if message.payload.n == 5 else Total(len(messages))  # an exception fails its item
            for message in messages
        ]


class Parts:
    def expand(self, number: Number) -> dict[type, list[Any]]:
        return {Total: [Total(number.n)], Shown: [Shown(str(n)) for n in range(number.n % 3)]}


class ByCountry:
    def partition_key(self, message: Message[Number]) -> str:
        return message.payload.country


ERRORS = IntoTopic("errors")
RAW = FromTopic("raw", payload=Number)


def flow(
    *nodes: Any, output: IntoTopic[Any] | None = None, errors: Any = ERRORS, **options: Any
) -> StreamFlow[Any, Any]:
    """A flow of these nodes that reads `raw`."""
    return StreamFlow("numbers", RAW, Process(*nodes), output, errors, **options)


OUT: IntoTopic[Any] = IntoTopic("out")

#: a flow for every kind of node and of error, by what it shows
FLOWS: dict[str, StreamFlow[Any, Any]] = {
    "steps": flow(picky, double, Tag, output=OUT),
    "an expansion": flow(picky, Repeat, show, output=OUT),
    "explode": flow(Explode(lambda number: [number] * (number.n % 3)), picky, output=OUT),
    "a router by key": flow(
        Router.by(payload.country, {"ES": Process(double), "UK": Process(picky)}), show, output=OUT
    ),
    "a router by predicate": flow(
        Router.when(
            [Route(payload.n > 10, Process(picky)), Route(msg.meta.key.isin(["1", "2"]), Process(IntoTopic("aside")))],
            default=Process(double),
        ),
        output=OUT,
    ),
    "a fork": flow(
        Fork.by(
            payload.country,
            {"ES": Process(double, IntoTopic("es")), "UK": Process(Drain())},
            default=Process(IntoTopic("rest")),
        )
    ),
    "a broadcast": flow(
        Broadcast(
            BroadcastRoute(Process(picky), OUT),
            BroadcastRoute(Process(show, IntoTopic("shown"))),
        )
    ),
    "expand routes": flow(
        ExpandRoutes(expander=Parts(), routes={Total: Process(IntoTopic("totals")), Shown: Process(IntoTopic("shown"))})
    ),
    "expand routes without one": flow(ExpandRoutes(expander=Parts(), routes={Total: Process(IntoTopic("totals"))})),
    # Large enough for all that a test reads: how a stream is cut hangs on how a broker deals its partitions out.
    "a batch": flow(CollectBatch(1_000, timeout_ms=2_000), Sizes, ForEach(), output=OUT),
    "small batches": flow(picky, CollectBatch(4, timeout_ms=50), ForEach(), show, output=OUT),
    "a drain": flow(picky, Drain()),
    "no branch": flow(Fork.by(payload.country, {"ES": Process(IntoTopic("es"))})),
    "values that do not encode": flow(unencodable, output=OUT),
    "a key policy": flow(
        double,
        output=IntoTopic(
            "out", partitioning=PartitionPolicy(ByCountry(), PartitionGuarantee.ENTITY_STABLE, allow_repartition=True)
        ),
    ),
    "an error route for each kind": flow(
        picky,
        output=OUT,
        errors=[
            ErrorRoute(ErrorKind.WIRE, IntoTopic("undecodable")),
            ErrorRoute([ErrorKind.BUSINESS, ErrorKind.TASK, ErrorKind.ROUTING], ERRORS),
        ],
    ),
    "errors that are dropped": flow(picky, output=OUT, errors=None, unrouted="drop"),
}
