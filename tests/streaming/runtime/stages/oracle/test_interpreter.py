"""The judge is judged by hand, on flows small enough to be worked out on paper."""

from __future__ import annotations

from loom.streaming import ErrorKind
from tests.streaming.runtime.stages.oracle.interpreter import Interpreter
from tests.streaming.runtime.stages.oracle.shapes import (
    Broadcasting,
    Chain,
    Choice,
    Collected,
    Expansion,
    Input,
    Parted,
    Single,
    Together,
)


def read(*values: int | str | None) -> list[Input]:
    return [
        Input(None, "broken", 0, None) if value == "broken" else Input(value, "json", 0, None)  # type: ignore[arg-type]
        for value in values
    ]


def numbers(interpreter: Interpreter, topic: str) -> list[int | None]:
    items = sorted(interpreter.written.get(topic, []), key=lambda item: (item.origin, item.order))
    return [item.value for item in items]


def errors(interpreter: Interpreter) -> list[tuple[int, tuple[int, ...], ErrorKind, str]]:
    ordered = sorted(interpreter.failures, key=lambda f: (f.item.origin, f.item.order))
    return [(f.item.origin, f.item.index, f.kind, f.step_id) for f in ordered]


def run(chain: Chain, *values: int | str | None) -> Interpreter:
    interpreter = Interpreter(chain)
    interpreter.batch(read(*values))
    interpreter.end()
    return interpreter


ADD = Single("s0", "function", ("add", "task"), False, False)


def test_an_expansion_in_front_of_a_fork_with_a_batch_step() -> None:
    gathered = Chain((Together("s0", ("add", "drop")),), "a")
    fork = Choice("end", "fork", True, "function", (0,), (gathered,), None, 2, None)
    found = run(Chain((ADD, Expansion("s1", "step", (2,), ("plain",))), fork), 0, 1, 3, "broken", None)
    # 0 becomes 1, then 1 and 2; 1 goes nowhere, 2 into the branch; 1 and 3 fail.
    assert numbers(found, "a") == [3]
    assert errors(found) == [
        (0, (0,), ErrorKind.ROUTING, "flow.end"),
        (1, (), ErrorKind.TASK, "flow.s0"),
        (2, (), ErrorKind.TASK, "flow.s0"),
        (3, (), ErrorKind.WIRE, "flow.source"),
        (4, (), ErrorKind.ROUTING, "flow.end"),
    ]


def test_a_router_goes_on_behind_its_branches_and_ends_where_a_branch_does() -> None:
    branches = (Chain((ADD,), None), Chain((), "a"))
    router = Choice("r", "router", True, "function", (0, 1), branches, None, 3, None)
    found = run(Chain((router,), None), 0, 1, 2, 3)
    assert (numbers(found, "out"), numbers(found, "a")) == ([1], [1])
    assert errors(found) == [(2, (), ErrorKind.ROUTING, "flow.r"), (3, (), ErrorKind.TASK, "flow.r.0.s0")]


def test_a_broadcast_orders_its_branches_and_does_not_tell_them_as_children() -> None:
    spread = Broadcasting("end", (Chain((ADD,), "a"), Chain((), "a")), (True, False))
    found = run(Chain((), spread), 0, 1)
    assert numbers(found, "a") == [1, 0, 1]
    assert set(found.at) == {(0, 0), (0, 1, 0)}
    assert errors(found) == [(1, (), ErrorKind.TASK, "flow.end.b0.s0")]


def test_collected_records_fail_together_and_wait_for_the_end() -> None:
    chain = Chain((Collected("c", 2, 50, (Together("b", ("add", "add", "short")),)),), None)
    interpreter = Interpreter(chain)
    interpreter.batch(read(0, 2, 3), now=1.0)
    assert errors(interpreter) == [(0, (), ErrorKind.TASK, "flow.b"), (1, (), ErrorKind.TASK, "flow.b")]
    assert [item.value for item in interpreter.kept()] == [3]
    interpreter.batch([], now=1.04)
    assert numbers(interpreter, "out") == []
    interpreter.batch([], now=1.05)
    assert numbers(interpreter, "out") == [4]


def test_types_without_a_branch_are_routing_errors_by_child() -> None:
    parted = Parted("end", ((1, 1),), Chain((), "a"), None, None)
    found = run(Chain((), parted), 5, None)
    assert numbers(found, "a") == [5]
    assert errors(found) == [(0, (1,), ErrorKind.ROUTING, "flow.end"), (1, (), ErrorKind.ROUTING, "flow.end")]
