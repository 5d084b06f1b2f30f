"""A plan reads as text: what is read, what happens, where everything goes."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

from loom.streaming import Fork, IntoTopic, Message, Process, compile_flow, step
from tests.streaming.orders import (
    Order,
    Price,
    PriceAll,
    PricedOrder,
    Split,
    by_country,
    config,
    ended,
    flow,
    price,
    validate,
)


@step
def keep_large(order: Order) -> Order | None:
    return order


def by_key(message: Message[Order]) -> Any:
    return message.meta.key


SETTINGS = config(
    consumer={"topics": ["raw-a", "raw-b"]},
    producers={"orders.es": {"topic": "es-v2", "format": "msgpack", "headers": "full"}},
)


def explained(declared: Any, settings: Any = SETTINGS) -> str:
    text = compile_flow(declared, config=settings).explain()
    assert text == compile_flow(declared, config=settings).explain("text")
    return text


def test_a_branched_flow_is_explained_whole() -> None:
    declared = ended(
        keep_large,
        Fork.by(
            by_country,
            {
                "ES": Process(Price, IntoTopic("orders.es", PricedOrder, dlq="orders.dead")),
                b"PT": Process(Fork.by(by_key, {b"a": Process(IntoTopic("orders.a"))})),
            },
            default=Process(Split, IntoTopic("orders.lines")),
        ),
        errors={"task": IntoTopic("orders.errors"), "wire": IntoTopic("orders.undecoded")},
    )
    assert explained(declared) == dedent(
        """\
        flow orders
          source  orders.raw: raw-a | raw-b as Order (json, or envelope), group orders
                  delivery: at_least_once
          process
            [0] orders.keep_large (function): Order -> Order | None
            [1] orders.fork by payload
              'ES':
                [1.0.0] orders.es.price (record): Order -> PricedOrder
                [1.0.1] orders.es.into-orders-es -> topic es-v2 (as orders.es), msgpack, headers full, refused records -> orders.dead
              b'PT':
                [1.1.0] orders.pt.fork by message
                  b'a':
                    [1.1.0.0.0] orders.pt.a.into-orders-a -> topic orders.a, json, headers auto
                  otherwise: routing error
              otherwise:
                [1.2.0] orders.default.split (expand): Order -> Line
                [1.2.1] orders.default.into-orders-lines -> topic orders.lines, json, headers auto
          errors  task -> topic orders.errors, json, headers auto
          errors  wire -> topic orders.undecoded, json, headers auto
          unrouted errors: fail
          warning errors-unrouted at errors: no route for routing, business errors: such a record stops the run
            help:     add a route for them: ErrorRoute([ErrorKind.ROUTING, ErrorKind.BUSINESS], IntoTopic(…))"""  # noqa: E501  one line of the plan is one line of the text
    )


def test_a_straight_flow_is_explained_with_its_output() -> None:
    lines = explained(flow(validate, PriceAll), config()).splitlines()
    assert lines[4:] == [
        "    [0] orders.validate (function): Order -> Order",
        "    [1] orders.price_all (batch): Order -> PricedOrder",
        "  output  topic orders.priced, json, headers auto",
        "  errors  wire, routing, task, business -> topic orders.errors, json, headers auto",
        "  unrouted errors: fail",
    ]


def test_a_flow_that_promises_nothing_is_said_to_do_so() -> None:
    text = explained(flow(price, unrouted="drop"), config(consumer={"delivery": None}))
    assert "delivery: best effort: may lose and may repeat (the client's auto-commit)" in text
    assert "unrouted errors: drop" in text


def test_a_source_with_a_format_reads_nothing_else() -> None:
    assert "as Order (msgpack), group orders" in explained(flow(price), config(consumer={"format": "msgpack"}))


def test_types_that_are_open_or_empty_are_said_to_be_so() -> None:
    @step(name="open")
    def open_ended(order: Any) -> Any: ...

    @step(name="drain")
    def drain(order: Any) -> None: ...

    text = explained(flow(open_ended, drain))
    assert "orders.open (function): any -> any\n" in text
    assert "orders.drain (function): any -> nothing\n" in text
