"""A payload type that no record can hold is refused before the flow runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, StreamFlow, compile_flow, step
from loom.streaming.compiler import Code, CompilationError, Issue
from tests.streaming.orders import CONFIG, Line, Order, config, flow, price

T = TypeVar("T")


class Stranger: ...


class Box(LoomFrozenStruct, Generic[T]):
    content: T


@step
def anything(order: Any) -> Any:
    return order


@step
def raw(value: bytes) -> bytes:
    return value


class Tree(LoomFrozenStruct):
    children: "list[Tree]" = []  # noqa: UP037  a forward reference is the point
    names: Iterable[str] = ()


class Unresolvable(LoomFrozenStruct):
    order: "Nowhere"  # type: ignore[name-defined]  # noqa: F821, UP037


class Ambiguous(LoomFrozenStruct):
    order: Order | Line


class Strange(LoomFrozenStruct):
    calls: list[dict[str, Stranger]] = []


def payload_problem(declared: StreamFlow[Any, Any], settings: Any = CONFIG) -> str | None:
    """What is wrong with the payload, which is the only thing that may be."""
    found: list[Issue] = []
    try:
        compile_flow(declared, config=settings)
    except CompilationError as error:
        found += error.errors
    assert [issue.code for issue in found] == [Code.PAYLOAD_INVALID] * len(found)
    return f"{found[0].where}: {found[0].message}" if found else None


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (Order, None),
        (Tree, None),
        (Box[Order], None),
        (Box[Tree], None),
        (dict, None),
        (int, None),
        (None, "source: a source's payload type does not name what a record without a value holds"),
        (Ambiguous, "source: this type cannot be read: If a type union contains multiple Struct types"),
        (Unresolvable, "source: this type cannot be read: name 'Nowhere' is not defined"),
        (Strange, "source: no wire format can hold the type Stranger"),
        (Box[Stranger], "source: no wire format can hold the type Stranger"),
    ],
)
def test_a_payload_that_cannot_be_read_is_refused(payload: Any, problem: str | None) -> None:
    found = payload_problem(flow(step(name="keep")(lambda x: x), source=FromTopic("orders.raw", payload)))
    assert (found or "").startswith(problem or "")
    assert (found is None) == (problem is None)


@pytest.mark.parametrize(
    ("payload", "written"), [(Ambiguous, True), (Unresolvable, True), (dict, True), (Strange, False)]
)
def test_a_payload_that_is_only_written_needs_no_readable_type(payload: Any, written: bool) -> None:
    def make(order: Any) -> Any: ...

    make.__annotations__["return"] = payload
    assert (payload_problem(flow(step(make))) is None) is written


def test_bytes_go_with_the_bytes_format_alone() -> None:
    source = FromTopic("orders.raw", bytes)
    as_bytes = config(consumer={"format": "bytes"}, producer={"format": "bytes"})
    assert payload_problem(flow(raw, source=source), as_bytes) is None
    assert payload_problem(flow(raw, source=source), config(producer={"format": "bytes"})) == (
        "source: the format json does not go with this payload"
    )
    assert payload_problem(flow(raw, source=source), config(consumer={"format": "bytes"})) == (
        "output: the format json does not go with this payload"
    )
    assert payload_problem(flow(price), as_bytes | config(producer={"format": "bytes"})) == (
        "output: the format bytes does not go with this payload"
    )


def test_an_error_route_takes_records_whatever_their_payload() -> None:
    settings = config(producers={"orders.errors": {"format": "bytes"}})
    assert payload_problem(flow(price), settings) is None


def test_an_unknown_payload_is_left_to_the_run() -> None:
    assert payload_problem(flow(anything), config(producer={"format": "bytes"})) is None
