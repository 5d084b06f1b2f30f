"""What a step returns is an instance of what it declares, or an error of its record; text is not several results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NewType, Protocol, TypedDict

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchExpandStep,
    BatchStep,
    CollectBatch,
    ErrorKind,
    ExpandRoutes,
    ExpandStep,
    Explode,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    RecordStep,
    StreamFlow,
    step,
)
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.runtime.stages.doubling import Negative, Number, Text
from tests.support.running import into_topics, numbers


class Line(LoomFrozenStruct):
    sku: str


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("f", FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"), IntoTopic("errors"))


def outcome(*nodes: Any, given: tuple[int, ...] = (1,)) -> tuple[list[bytes | None], list[str]]:
    """The values that are written, and the reasons of the errors, all of which are `TASK`."""
    topics, counts = into_topics(flow(*nodes), numbers(*given))
    letters = topics.get("errors", [])
    assert set(counts.failed) <= {ErrorKind.TASK}
    assert all(letter.value is not None for letter in letters)
    reasons = [(dict(letter.headers)["x-error-reason"] or b"").decode() for letter in letters]
    return [record.value for record in topics.get("out", [])], reasons


def returning(annotation: Any, result: Any) -> Any:
    def work(number: Number) -> Any:
        return result

    work.__annotations__["return"] = annotation
    return step(work)


class LinesOf(ExpandStep[Number, Line]):
    def __init__(self, result: Any) -> None:
        self.result = result

    def execute(self, message: Message[Number]) -> Any:
        return self.result


def test_a_step_that_returns_another_class_is_a_task_error_naming_both_and_its_neighbours_arrive() -> None:
    @step
    def price(number: Number) -> Line:
        return {"sku": 5} if number.n == 2 else Line("a")  # type: ignore[return-value]

    written, (reason,) = outcome(price, given=(1, 2, 3))
    assert written == [b'{"sku":"a"}'] * 2
    assert reason == "price returned a dict, and declares Line. Return what is declared, or change the annotation"


def test_a_record_step_may_not_hide_another_class_in_a_message() -> None:
    class Price(RecordStep[Number, Line]):
        def execute(self, message: Message[Number]) -> Any:
            return message.with_payload("abc").with_key("new")

    written, (reason,) = outcome(Price)
    assert (written, reason[:47]) == ([], "price returned a str, and declares Line. Return")


@pytest.mark.parametrize("result", ["abc", b"ab", bytearray(b"ab"), {"a": 1, "b": 2}], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("place", ["expand", "explode", "batch", "batch expand", "entry", "group"])
def test_one_value_in_the_place_of_several_is_a_task_error(place: str, result: Any) -> None:
    class Batch(BatchStep[Number, str]):
        def execute(self, messages: list[Message[Number]]) -> Any:
            return result

    class Many(BatchExpandStep[Number, str]):
        def execute(self, messages: list[Message[Number]]) -> Any:
            return result if place == "batch expand" else [result for _ in messages]

    def explode(number: Number) -> Any:
        return result

    class Expander:
        def expand(self, payload: Number) -> dict[Any, Any]:
            return {str: result}

    nodes: dict[str, tuple[Any, ...]] = {
        "expand": (LinesOf(result),),
        "explode": (Explode(explode),),
        "batch": (CollectBatch(len(result), 1_000), Batch, ForEach()),
        "batch expand": (CollectBatch(len(result), 1_000), Many, ForEach()),
        "entry": (CollectBatch(1, 1_000), Many, ForEach()),
    }
    if place == "group":
        parted = ExpandRoutes(expander=Expander(), routes={str: Process(IntoTopic("out"))})
        whole: StreamFlow[Any, Any] = StreamFlow(
            "f", FromTopic("numbers", Number), Process(parted), errors=IntoTopic("errors")
        )
        topics, _ = into_topics(whole, numbers(1))
        assert [*topics] == ["errors"]
        return
    written, reasons = outcome(*nodes[place], given=tuple(range(1, len(result) + 1)))
    assert written == []
    assert len(reasons) == len(result)
    assert all(f"returned a {type(result).__name__} where it returns several results" in r for r in reasons)


def test_a_set_is_no_answer_to_a_batch_since_nothing_says_which_entry_belongs_to_which_message() -> None:
    class Batch(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> Any:
            return {message.payload for message in messages}

    written, reasons = outcome(CollectBatch(2, 1_000), Batch, ForEach(), given=(1, 2))
    assert (written, len(reasons)) == ([], 2)
    assert "which has no order" in reasons[0]


def test_an_expansion_of_texts_is_legal_and_a_child_of_another_class_is_an_error_of_its_own() -> None:
    class Words(ExpandStep[Number, str]):
        def execute(self, message: Message[Number]) -> Any:
            return ["a", Number(1), "b"]

    topics, counts = into_topics(flow(Words), numbers(1))
    assert [record.value for record in topics["out"]] == [b'"a"', b'"b"']
    (letter,) = topics["errors"]
    assert dict(letter.headers)["x-error-index"] == b"1"
    assert counts.failed == {ErrorKind.TASK: 1}


def test_an_entry_of_a_batch_of_another_class_fails_its_item_alone() -> None:
    class Batch(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> Any:
            return [Line("x") if m.payload.n == 2 else m.payload for m in messages]

    written, (reason,) = outcome(Batch, given=(1, 2, 3))
    assert (written, reason[:43]) == ([b'{"n":1}', b'{"n":3}'], "batch returned a Line, and declares Number.")


def test_what_an_expander_makes_under_a_type_is_of_that_type() -> None:
    class Expander:
        def expand(self, payload: Number) -> dict[Any, Any]:
            return {Line: [Line("a"), Number(1)]}

    parted = ExpandRoutes(expander=Expander(), routes={Line: Process(IntoTopic("out"))})
    whole: StreamFlow[Any, Any] = StreamFlow(
        "f", FromTopic("numbers", Number), Process(parted), errors=IntoTopic("errors")
    )
    topics, _ = into_topics(whole, numbers(1))
    assert ([record.value for record in topics["out"]], len(topics["errors"])) == ([b'{"sku":"a"}'], 1)


class Row(TypedDict):
    n: int


class Closing(Protocol):
    def close(self) -> None: ...


OrderId = NewType("OrderId", str)


@pytest.mark.parametrize(
    ("annotation", "result"),
    [
        (Number, Negative(1)),
        (Number | Line, Line("a")),
        (list[Number], [Number(1)]),
        (list[Number], ["not looked at"]),
        (dict[str, int], {"n": 1}),
        (Row, {"n": 1}),
        (Mapping[str, int], {"n": 1}),
        (OrderId, "7"),
        (Literal["a", "b"], "a"),
        (float, 1),
        (float | None, 1.5),
        (object, "anything"),
        (Any, "anything"),
    ],
    ids=str,
)
def test_a_result_of_a_declared_class_or_of_one_below_it_goes_on(annotation: Any, result: Any) -> None:
    written, reasons = outcome(returning(annotation, result))
    assert (len(written), reasons) == (1, [])


@pytest.mark.parametrize(
    ("annotation", "result"),
    [
        (Negative, Number(1)),
        (Number | Line, Text("a")),
        (list[Number], (Number(1),)),
        (Row, Number(1)),
        (OrderId, 7),
        (Literal["a", "b"], 1),
        (int, 1.5),
        (Number, Number),
        (Number, ValueError("returned, not raised")),
        (None, Number(1)),
    ],
    ids=str,
)
def test_a_result_of_another_class_is_an_error(annotation: Any, result: Any) -> None:
    written, reasons = outcome(returning(annotation, result))
    assert (written, len(reasons)) == ([], 1)


def test_a_protocol_that_no_class_tells_is_open() -> None:
    @step
    def closes(number: Closing) -> Number:
        return Number(7)

    assert outcome(returning(Closing, Line("nothing to tell by")), closes) == ([b'{"n":7}'], [])


class Lazy:
    """A proxy without anything behind it, whose very class cannot be asked for."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise RuntimeError("nothing is bound")


@pytest.mark.parametrize("kind", ["function", "batch"])
def test_a_proxy_whose_class_cannot_be_asked_for_is_an_error_of_its_record(kind: str) -> None:
    class Batch(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> Any:
            return [Lazy() for _ in messages]

    written, reasons = outcome(returning(Number, Lazy()) if kind == "function" else Batch)
    assert (written, len(reasons)) == ([], 1)


def test_a_step_that_says_nothing_is_open_and_the_plan_warns() -> None:
    @step
    def loose(number):  # type: ignore[no-untyped-def]
        return {"n": number.n}

    assert outcome(loose) == ([b'{"n":1}'], [])
    runner = StreamingTestRunner.from_flow(flow(loose))
    (warning,) = [w for w in runner.plan.warnings if w.code == "step-untyped"]
    assert (warning.path, warning.where) == ((0,), "process")
    assert "step-untyped" in runner.plan.explain()


def test_only_a_step_that_leaves_its_result_open_without_saying_so_is_warned_of() -> None:
    class Bare(RecordStep):  # type: ignore[type-arg]
        def execute(self, message):  # type: ignore[no-untyped-def]
            return message.payload

    class Elements(ExpandStep):  # type: ignore[type-arg]
        def execute(self, message: Message[Number]) -> list:  # type: ignore[type-arg]
            return [message.payload]

    class Typed(RecordStep[Number, Number]):
        def execute(self, message):  # type: ignore[no-untyped-def]
            return message.payload

    plan = StreamingTestRunner.from_flow(flow(Bare, Typed, returning(Any, 1), Elements)).plan
    assert [w.path for w in plan.warnings if w.code == "step-untyped"] == [(0,), (3,)]


class Invents(RecordStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Message[Number]:
        return Message(message.payload, MessageMeta("mine", topic="elsewhere", partition=9, offset=99, key=b"k"))


def test_a_position_that_a_step_invents_is_never_told() -> None:
    seen: list[Any] = []

    class Looks(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            seen.append(message.meta)
            if message.payload.n == 2:
                raise ValueError("two")
            return message.payload

    runner = StreamingTestRunner.from_flow(flow(Invents, Looks)).with_records(numbers(1, 2)).run()
    (error,) = runner.errors[ErrorKind.TASK]
    assert error.original_message is not None
    for meta, offset in ((error.original_message.meta, 1), (runner.output[0].meta, 0), (seen[0], 0), (seen[1], 1)):
        assert (meta.topic, meta.partition, meta.offset) == ("numbers", 0, offset)
        assert (meta.message_id, meta.key) == ("mine", b"k")
