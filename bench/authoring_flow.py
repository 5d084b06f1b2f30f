"""The flow of the authoring suite without its router, and what both have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

from bench.authoring_steps import (
    check_address,
    check_channel,
    check_currency,
    check_identity,
    check_sum,
    in_app,
    in_store,
    on_the_web,
    size_of,
)
from bench.loom_memory import run_in_memory
from bench.orders import Order, PricedOrder, price, validate
from loom.streaming import Fork, FromTopic, IntoTopic, Message, Process, RecordStep, StreamFlow, step
from loom.streaming.record import KafkaRecord

#: makes a node of a function
AsNode = Callable[[Callable[[Any], Any]], Any]


def as_record_step(function: Callable[[Any], Any]) -> type[RecordStep[Any, Any]]:
    """The class that an author would write around such a function."""
    payload, result = (get_type_hints(function)[name] for name in ("order", "return"))

    class Made(RecordStep[payload, result]):  # type: ignore[valid-type]
        name = function.__name__

        def execute(self, message: Message[Any]) -> Any:
            return function(message.payload)

    Made.execute.__annotations__ = {"message": Message[payload], "return": result}  # type: ignore[valid-type]
    return Made


def flow(as_node: AsNode, *branches: Any) -> StreamFlow[Order, PricedOrder]:
    """Five steps, what chooses and checks by channel, two steps, a fork."""
    before = map(as_node, (validate, check_currency, check_channel, check_identity, price))
    behind = map(as_node, (check_sum, check_address))
    fork = Fork.by(size_of, {"large": Process(IntoTopic("large"))}, default=Process(IntoTopic("small")))
    process = Process(*before, *branches, *behind, fork)
    return StreamFlow("bench", FromTopic("in", payload=Order), process, errors=IntoTopic("errors"))


def run_step(records: Sequence[KafkaRecord]) -> int:
    """Ten `@step` functions."""
    return run_in_memory(flow(step, *map(step, (in_store, in_app, on_the_web))), records)


def run_record_step(records: Sequence[KafkaRecord]) -> int:
    """Ten `RecordStep`s, which are handed a `Message`."""
    return run_in_memory(flow(as_record_step, *map(as_record_step, (in_store, in_app, on_the_web))), records)
