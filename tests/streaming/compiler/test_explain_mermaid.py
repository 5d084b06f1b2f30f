"""A plan as a flowchart: what it shows, and how what could be taken for Mermaid's own is written."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest

from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Drain,
    ForEach,
    Fork,
    IntoTopic,
    Process,
    Route,
    Router,
    compile_flow,
    payload,
)
from loom.streaming.compiler.explain.mermaid import _text as escaped
from tests.streaming.orders import Price, config, ended, flow, price, validate


class Warehouse:
    def __init__(self, password: str = "hunter2") -> None:
        self.password = password

    def build_partition(self, config: Any, worker_index: int, worker_count: int, **more: Any) -> Any: ...


def drawn(declared: Any, settings: Any = None) -> str:
    return compile_flow(declared, config=settings or config()).explain("mermaid")


def test_a_branched_flow_is_drawn_whole() -> None:
    declared = ended(
        Router.when(
            [
                Route(payload.country == 'E"S', Process(validate), name="spain"),
                Route(payload.id < 0, Process(Drain()), name="broken"),
            ]
        ),
        Broadcast(
            BroadcastRoute(Process(Price), IntoTopic("orders.priced", dlq="orders.dead")),
            BroadcastRoute(Process(CollectBatch(10, 500), ForEach(), Warehouse()), name="store"),
            BroadcastRoute(Process(Fork.by(payload.country, {"ES": Process(IntoTopic("orders.es"))})), name="split"),
        ),
        errors={"task": IntoTopic("orders.errors", dlq="orders.dead"), "routing": IntoTopic("orders.lost")},
        unrouted="drop",
    )
    assert drawn(declared, config(producers={"orders.es": {"topic": "es-v2"}})) == dedent(
        """\
        flowchart TD
            subgraph process["orders"]
                n0{"orders.router<br/>the first that holds"}
                n0_0_0["orders.spain.validate<br/>(function): Order → Order"]
                n0_1_0(["orders.broken.drain<br/>dropped on purpose"])
                n1["orders.broadcast<br/>every branch"]
                n1_0_0["orders.orders-priced.price<br/>(record): Order → PricedOrder"]
                n1_0[("orders.orders-priced.into-orders-priced<br/>topic orders.priced")]
                n1_1_0["orders.store.collect_batch<br/>up to 10 records or 500 ms"]
                n1_1_1["orders.store.collect_batch.for_each"]
                n1_1_2[("orders.store.into-warehouse<br/>sink Warehouse")]
                n1_2_0{"orders.split.fork<br/>by payload.country"}
                n1_2_0_0_0[("orders.split.es.into-orders-es<br/>topic es-v2 (as orders.es)")]
            end
            source[("orders.raw<br/>Order from orders.raw<br/>at_least_once, group orders")]
            errors_0[("orders.errors.into-orders-errors<br/>topic orders.errors")]
            dlq_0[("dead letters<br/>topic orders.dead")]
            errors_1[("orders.errors.into-orders-lost<br/>topic orders.lost")]
            unrouted(["dropped, counted and logged"])
            errors_0 -.->|"refused records"| dlq_0
            process -.->|"task errors"| errors_0
            process -.->|"routing errors"| errors_1
            process -.->|"wire, business errors"| unrouted
            source --> n0
            n0 -->|"spain"| n0_0_0
            n0 -->|"broken"| n0_1_0
            n0 -.->|"routing error"| errors_1
            n0_0_0 --> n1
            n1 -->|"orders-priced"| n1_0_0
            n1_0_0 --> n1_0
            n1_0 -.->|"refused records"| dlq_0
            n1 -->|"store"| n1_1_0
            n1_1_0 --> n1_1_1
            n1_1_1 --> n1_1_2
            n1 -->|"split"| n1_2_0
            n1_2_0 -->|"'ES'"| n1_2_0_0_0
            n1_2_0 -.->|"routing error"| errors_1"""
    )


def test_a_straight_flow_ends_in_its_output() -> None:
    assert drawn(flow(validate, price)).splitlines()[-4:] == [
        '    process -.->|"wire, routing, task, business errors"| errors_0',
        "    source --> n0",
        "    n0 --> n1",
        "    n1 --> output",
    ]


def test_a_flow_that_promises_nothing_is_said_to_do_so() -> None:
    text = drawn(flow(price, errors=None), config(consumer={"delivery": None}))
    assert "best effort, group orders" in text
    assert 'unrouted(["the run stops"])' in text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("orders.es.price", "orders.es.price"),
        ("'E\"S'", "'E#34;S'"),
        ("a<b>&`c`|{}", "a#60;b#62;#38;#96;c#96;#124;#123;#125;"),
        ("#quot;", "#35;quot#59;"),
        ("a\\nb", "a#92;nb"),
        ("a\nb\tc", "a b c"),
        ("Order -> Line", "Order → Line"),
        ("1. first", "1#46; first"),
        ("- first", "#45; first"),
        ("**bold**", "#42;#42;bold#42;#42;"),
        ("ñ漢🦊", "ñ漢#129418;"),
        ("x" * 121, "x" * 119 + "#8230;"),
    ],
)
def test_a_label_is_written_so_that_it_is_read_as_it_was(text: str, written: str) -> None:
    assert escaped(text) == written
