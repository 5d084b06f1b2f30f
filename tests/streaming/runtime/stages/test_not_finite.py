"""NaN and the infinities, which JSON does not have, are an error of their record at the output; other formats keep them."""

from __future__ import annotations

import dataclasses
import math
from enum import Enum
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, FromTopic, IntoTopic, Message, MessageMeta, Process, StreamFlow, step
from loom.streaming.formats.finite import FiniteNumbers, NotFiniteError
from loom.streaming.kafka import MsgspecCodec, WireFormat
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.runtime.stages.doubling import Number
from tests.support.running import config_for, into_topics, numbers


class Ratio(LoomFrozenStruct):
    value: float
    note: str | None = None


class Either(LoomFrozenStruct):
    value: float | int | None = None


class Anything(LoomFrozenStruct):
    inside: Any = None
    note: str | None = None


class Basket(LoomFrozenStruct):
    ratios: list[Ratio] = []
    by_name: dict[str, float] = {}


class Finer(Ratio):
    second: float = 0.0


class Row(TypedDict):
    value: float
    note: str | None


class Pair(NamedTuple):
    left: float
    right: int


@dataclasses.dataclass
class Point:
    x: float


class Level(Enum):
    NONE = math.nan
    LOW = 0.5


NAN, INF = math.nan, math.inf
HELD = [
    (Ratio, Ratio(NAN), "$.value is nan"),
    (Ratio, Ratio(-INF, "null"), "$.value is -inf"),
    (Ratio, Finer(1.0, second=INF), "$.second is inf"),
    (Either, Either(NAN), "$.value is nan"),
    (Anything, Anything(NAN), "$.inside is nan"),
    (Anything, Anything({"a": [1.5, {"b": INF}]}), "$.inside.a[1].b is inf"),
    (Anything, Anything(Point(NAN)), "$.inside.x is nan"),
    (Anything, Anything(Level.NONE), "$.inside is nan"),
    (Basket, Basket([Ratio(0.5), Ratio(NAN)]), "$.ratios[1].value is nan"),
    (Basket, Basket(by_name={"a": INF}), "$.by_name.a is inf"),
    (Point, Point(INF), "$.x is inf"),
    (Pair, Pair(NAN, 1), "$[0] is nan"),
    (Row, {"value": NAN, "note": None}, "$.value is nan"),
    (dict[str, Any], {"a": NAN}, "$.a is nan"),
    (dict[str, float], {"a": -INF}, "$.a is -inf"),
    (list[float], [1.0, NAN], "$[1] is nan"),
    (float, NAN, "$ is nan"),
    (Any, {"a": NAN}, "$.a is nan"),
]
FIT = [
    (Ratio, Ratio(1e308)),
    (Ratio, Ratio(3)),  # an int, as a type checker allows
    (Ratio, Ratio(None)),  # type: ignore[arg-type]  # not its type, and not our business here
    (Ratio, Ratio("null", "null")),  # type: ignore[arg-type]
    (Either, Either()),
    (Anything, Anything(None, "null")),
    (Anything, Anything([None, 1.5, "null", {"a": None}])),
    (Basket, Basket([Ratio(0.5)], {"a": 0.0})),
    (dict[str, Any], {"a": None}),
    (float, 0.5),
]


def flow(annotation: Any, payload: Any) -> StreamFlow[Any, Any]:
    def work(number: Number) -> Any:
        return payload

    work.__annotations__["return"] = annotation
    return StreamFlow("f", FromTopic("numbers", Number), Process(step(work)), IntoTopic("out"), IntoTopic("errors"))


@pytest.mark.parametrize(("annotation", "payload", "found"), HELD, ids=[str(case[1]) for case in HELD])
def test_a_number_that_json_does_not_have_is_a_task_error_at_the_output_that_says_where(
    annotation: Any, payload: Any, found: str
) -> None:
    topics, counts = into_topics(flow(annotation, payload), numbers(2))
    assert "out" not in topics
    (letter,) = topics["errors"]
    told = dict(letter.headers)
    assert (letter.value, told["x-error-step"]) == (b'{"n":2}', b"f.output")
    assert (told["x-error-reason"] or b"").decode().startswith(f"{found}, which JSON does not have")
    assert counts.failed == {ErrorKind.TASK: 1}


@pytest.mark.parametrize(("annotation", "payload"), FIT, ids=str)
def test_a_null_that_was_a_none_is_written(annotation: Any, payload: Any) -> None:
    topics, counts = into_topics(flow(annotation, payload), numbers(2))
    assert [record.value for record in topics["out"]] == [msgspec.json.encode(payload)]
    assert counts.failed == {}


@pytest.mark.parametrize("wire_format", ["msgpack", "envelope"])
def test_a_binary_format_keeps_them(wire_format: str) -> None:
    config = config_for(producer={"format": wire_format})
    topics, counts = into_topics(flow(Ratio, Ratio(NAN)), numbers(2), config=config)
    assert (len(topics["out"]), counts.failed) == (1, {})


def test_the_test_kit_says_the_same_and_what_is_written_reads_back() -> None:
    @step
    def ratio(number: Number) -> Ratio:
        return Ratio(NAN if number.n == 2 else 0.5)

    declared = StreamFlow("f", FromTopic("numbers", Number), Process(ratio), IntoTopic("out"), IntoTopic("errors"))
    runner = StreamingTestRunner.from_flow(declared).with_records(numbers(1, 2, 3)).run()
    assert [msgspec.json.decode(r.value or b"", type=Ratio) for r in runner.written("out")] == [Ratio(0.5)] * 2
    assert len(runner.errors[ErrorKind.TASK]) == 1


def test_the_codec_refuses_them_too_in_json_alone() -> None:
    message = Message(Ratio(NAN), MessageMeta("m"))
    with pytest.raises(NotFiniteError, match=r"\$\.value is nan"):
        MsgspecCodec(Ratio).encode("out", message)
    assert MsgspecCodec(Ratio, WireFormat.MSGPACK).encode("out", message).value is not None


class Defaulted(LoomFrozenStruct, omit_defaults=True):
    value: float = INF


def test_a_default_that_is_left_out_is_no_null() -> None:
    topics, _ = into_topics(flow(Defaulted, Defaulted()), numbers(2))
    assert [record.value for record in topics["out"]] == [b"{}"]


class Inner(LoomFrozenStruct):
    id: int
    name: str | None
    tags: list[str]
    level: Level | None = None


class Outer(LoomFrozenStruct):
    inner: Inner | None
    many: dict[str, tuple[int, ...]]
    again: list[Outer]


class Plain(LoomFrozenStruct):
    id: int
    tags: dict[str, list[bytes]]
    again: list[Plain]


def test_types_without_floats_are_not_looked_at_and_those_with_any_are() -> None:
    known = FiniteNumbers([Plain, Outer, Ratio, Number, dict[str, int]])
    assert {Plain, Number, dict} <= known.harmless
    assert not {Outer, Ratio} & known.harmless


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3) | st.just("null"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(value=VALUES)
def test_any_value_is_refused_if_and_only_if_it_does_not_read_back(value: Any) -> None:
    encoded = msgspec.json.encode(value)

    def same(left: Any, right: Any) -> bool:
        if isinstance(left, list):
            return isinstance(right, list) and all(map(same, left, right))
        if isinstance(left, dict):
            return isinstance(right, dict) and all(same(left[key], right[key]) for key in left)
        return bool(left == right)

    known = FiniteNumbers()
    if same(value, msgspec.json.decode(encoded)):
        known.check(value, encoded)
    else:
        with pytest.raises(NotFiniteError):
            known.check(value, encoded)
