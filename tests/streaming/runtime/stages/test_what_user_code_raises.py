"""Whatever user code raises is one record's error, panics of native libraries included; what ends a program ends the run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loom.streaming import (
    BatchExpandStep,
    BatchStep,
    CollectBatch,
    ErrorKind,
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
    step,
)
from loom.streaming.runtime.run_errors import RunEndedError
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.runtime.stages.doubling import Number
from tests.support.running import into_topics, numbers


class PanicException(BaseException):
    """As native extensions raise it: no `Exception`."""


def of(n: int, error: BaseException) -> int:
    if n == 2:
        raise error
    return n


def nodes(error: BaseException) -> dict[str, tuple[Any, ErrorKind]]:
    """Every place at which user code may raise, and the kind of its errors."""

    @step
    def function(number: Number) -> Number:
        return Number(of(number.n, error))

    class Record(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            return Number(of(message.payload.n, error))

    class Expand(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return [Number(of(message.payload.n, error))]

    class Batch(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number | BaseException]:
            return [error if m.payload.n == 2 else m.payload for m in messages]

    def select(number: Number) -> str:
        return str(of(number.n, error) * 0)

    def holds(number: Number) -> bool:
        return of(number.n, error) > 0

    def explode(number: Number) -> list[Number]:
        return [Number(of(number.n, error))]

    return {
        "function": (function, ErrorKind.TASK),
        "record step": (Record, ErrorKind.TASK),
        "expand step": (Expand, ErrorKind.TASK),
        "batch step": (Batch, ErrorKind.TASK),
        "explode": (Explode(explode), ErrorKind.TASK),
        "selector": (Router.by(select, {"0": Process(function_that_passes)}), ErrorKind.ROUTING),
        "predicate": (Router.when([Route(holds, Process(function_that_passes))]), ErrorKind.ROUTING),
    }


@step
def function_that_passes(number: Number) -> Number:
    return number


PLACES = list(nodes(ValueError()))
LIBRARIES = [PanicException("index out of bounds"), asyncio.CancelledError()]


def flow(*inside: Any, output: IntoTopic[Any] | None = None) -> StreamFlow[Any, Any]:
    return StreamFlow(
        "f", FromTopic("numbers", Number), Process(*inside), output or IntoTopic("out"), IntoTopic("errors")
    )


def letters(topics: dict[str, Any]) -> list[tuple[bytes | None, bytes | None, bytes | None]]:
    found = []
    for letter in topics.get("errors", []):
        headers = dict(letter.headers)
        found.append((letter.value, headers.get("x-error-kind"), headers.get("x-error-type")))
    return found


@pytest.mark.parametrize("error", LIBRARIES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_exception_of_python_is_an_error_of_its_record_alone(place: str, error: BaseException) -> None:
    node, kind = nodes(error)[place]
    topics, counts = into_topics(flow(node), numbers(1, 2, 3))
    assert [record.value for record in topics["out"]] == [b'{"n":1}', b'{"n":3}']
    named = f"{type(error).__module__}.{type(error).__qualname__}".encode()
    assert letters(topics) == [(b'{"n":2}', kind.value.encode(), named)]
    assert counts.failed == {kind: 1}


def test_a_panic_in_a_batch_step_gives_every_item_its_own_error_and_in_a_strategy_is_a_routing_error() -> None:
    class Whole(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            raise PanicException("no column")

    topics, counts = into_topics(flow(Whole), numbers(1, 2))
    assert (len(letters(topics)), counts.failed) == (2, {ErrorKind.TASK: 2})

    class Strategy:
        def partition_key(self, message: Message[Number]) -> bytes:
            return b"%d" % of(message.payload.n, PanicException())

    policy = PartitionPolicy(Strategy(), PartitionGuarantee.BEST_EFFORT)
    topics, counts = into_topics(
        flow(function_that_passes, output=IntoTopic("out", partitioning=policy)), numbers(1, 2, 3)
    )
    assert ([record.key for record in topics["out"]], counts.failed) == ([b"1", b"3"], {ErrorKind.ROUTING: 1})


def test_an_entry_of_a_batch_expansion_that_panics_while_it_is_iterated_fails_its_item() -> None:
    class Many(BatchExpandStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            return [(Number(of(n, PanicException())) for n in [m.payload.n]) for m in messages]

    topics, counts = into_topics(flow(CollectBatch(2, 1_000), Many, ForEach()), numbers(1, 2))
    assert ([record.value for record in topics["out"]], counts.failed) == ([b'{"n":1}'], {ErrorKind.TASK: 1})


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("place", PLACES)
def test_what_ends_a_program_ends_the_run_and_names_step_and_record(place: str, error: BaseException) -> None:
    node, _ = nodes(error)[place]
    with pytest.raises(RunEndedError) as ended:
        StreamingTestRunner.from_flow(flow(node)).with_records(numbers(1, 2, 3)).run()
    assert ended.value.__cause__ is error
    assert ended.value.step_id.startswith("f.")
    assert str(ended.value).startswith(f"{ended.value.step_id} raised {type(error).__name__} for numbers[0]@1")


class Mute(Exception):
    def __str__(self) -> str:
        raise PanicException("no text either")


def test_an_error_that_cannot_even_be_told_is_told_by_its_class() -> None:
    node, _ = nodes(Mute())["function"]
    topics, _ = into_topics(flow(node), numbers(2))
    assert dict(topics["errors"][0].headers)["x-error-reason"] == b"Mute"


class Nameless:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize("key", [Nameless(), 10**5000], ids=["repr raises", "5,000 digits"])
@pytest.mark.parametrize("kind", [Router, Fork])
def test_a_key_without_a_branch_that_cannot_be_shown_is_one_routing_error(kind: Any, key: Any) -> None:
    def select(number: Number) -> Any:
        return key if number.n == 2 else "a"

    ends = [] if kind is Router else [IntoTopic("out")]
    choice = kind.by(select, {"a": Process(function_that_passes, *ends)})
    whole = (
        flow(choice)
        if kind is Router
        else StreamFlow("f", FromTopic("numbers", Number), Process(choice), errors=IntoTopic("errors"))
    )
    topics, counts = into_topics(whole, numbers(1, 2, 3))
    assert [record.value for record in topics["out"]] == [b'{"n":1}', b'{"n":3}']
    (letter,) = topics["errors"]
    reason = dict(letter.headers)["x-error-reason"] or b""
    assert reason.startswith(b"no branch for <%s, which has no repr" % type(key).__qualname__.encode())
    assert counts.failed == {ErrorKind.ROUTING: 1}


def test_a_long_key_without_a_branch_is_shortened_in_the_reason() -> None:
    def select(number: Number) -> str:
        return "x" * 1_000_000

    topics, _ = into_topics(flow(Router.by(select, {"a": Process(function_that_passes)})), numbers(1))
    assert len(dict(topics["errors"][0].headers)["x-error-reason"] or b"") < 300


def test_a_type_without_a_branch_that_cannot_be_shown_is_one_routing_error() -> None:
    class Expander:
        def expand(self, payload: Number) -> dict[Any, list[Any]]:
            return {Nameless(): [payload]}

    node = ExpandRoutes(expander=Expander(), routes={Number: Process(IntoTopic("out"))})
    whole: StreamFlow[Any, Any] = StreamFlow(
        "f", FromTopic("numbers", Number), Process(node), errors=IntoTopic("errors")
    )
    _, counts = into_topics(whole, numbers(1))
    assert counts.failed == {ErrorKind.ROUTING: 1}
