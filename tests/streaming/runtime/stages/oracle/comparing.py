"""What the interpreter says and what has left a stage, side by side: by outlet, each result with the input it stems from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from loom.streaming import ErrorEnvelope, ErrorKind, Message, Tombstone
from loom.streaming.kafka.record_headers import key_bytes
from tests.streaming.runtime.stages.oracle.driving import Driven, Left
from tests.streaming.runtime.stages.oracle.interpreter import Failure, Interpreter, Item

__all__ = ["Result", "expected_by_slot", "left_by_slot"]


class Result(NamedTuple):
    origin: int
    what: Any


def expected_by_slot(
    interpreter: Interpreter, driven: Driven, among: Callable[[int], bool] = lambda origin: True
) -> dict[str, list[Result]]:
    """What should leave, in source order; `among` chooses by input."""
    found: dict[str, list[tuple[int, Any, Result]]] = {}
    names, slots = driven.slots.names, driven.slots
    for path, items in interpreter.at.items():
        for item in items:
            told = Result(item.origin, (_value_told(item), item.key))
            found.setdefault(names[slots.outputs[path]], []).append((item.origin, item.order, told))
    for failure in interpreter.failures:
        told = Result(failure.item.origin, _failure_told(failure, driven))
        slot = names[slots.errors[failure.kind].slot]
        found.setdefault(slot, []).append((failure.item.origin, failure.item.order, told))
    return {
        slot: [told for *_, told in sorted(results, key=lambda one: one[:2]) if among(told.origin)]
        for slot, results in found.items()
    }


def left_by_slot(left: list[Left], among: Callable[[int], bool] = lambda origin: True) -> dict[str, list[Result]]:
    """What has left, in the order in which it did."""
    found: dict[str, list[Result]] = {}
    for one in left:
        if among(one.origin):
            found.setdefault(one.slot, []).append(Result(one.origin, _told(one)))
    return found


def _value_told(item: Item) -> Any:
    return None if item.value is None else (item.value, item.type)


def _failure_told(failure: Failure, driven: Driven) -> Any:
    index = None if driven.hosted else ".".join(map(str, failure.item.index))
    return (failure.kind, failure.step_id, failure.path, index)


def _told(one: Left) -> Any:
    if isinstance(one.value, Message):
        payload = one.value.payload
        value = None if isinstance(payload, Tombstone) else (payload.n, type(payload).__name__)
        return (value, key_bytes(one.value.meta.key))
    if isinstance(one.value, ErrorEnvelope):
        return (one.value.kind, one.value.step_id, one.value.path, None)
    if "x-error-kind" in one.headers:
        headers = {name: (value or b"").decode() for name, value in one.headers.items()}
        path = tuple(int(part) for part in headers.get("x-error-path", "").split(".") if part)
        return (ErrorKind(headers["x-error-kind"]), headers["x-error-step"], path, headers.get("x-error-index", ""))
    fields = msgspec.json.decode(one.value) if one.value is not None else None
    return (None if fields is None else (fields["n"], "Other" if "other" in fields else "Number"), one.key)
