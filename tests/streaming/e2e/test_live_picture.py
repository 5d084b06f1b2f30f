"""What a running flow tells of itself as it is now: the document, its page, and that whoever looks holds up nothing."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import loom
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    CollectBatch,
    ErrorKind,
    ErrorRoute,
    ForEach,
    Fork,
    FromTopic,
    IntoTopic,
    Process,
    StreamFlow,
    compile_flow,
    step,
)
from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.metrics import FlowCounts
from loom.streaming.runtime.telemetry.live_document import LiveDocument, LiveNode
from tests.streaming.e2e.test_metrics_endpoint import Served, serving
from tests.support.running import config_for, produce

PAGE = Path(loom.__path__[0]) / "streaming" / "runtime" / "telemetry" / "page"


class Order(LoomFrozenStruct):
    id: int
    country: str = "es"


@step
def check(order: Order) -> Order | None:
    if order.id < 0:
        raise ValueError("cannot connect: password=hunter2")
    return order if order.id else None


@step
def country(order: Order) -> str:
    return order.country


@step
def label(order: Order) -> Order:
    return order


def orders() -> StreamFlow[Any, Any]:
    fork = Fork.by(
        country, {"es": Process(label, IntoTopic("spanish", payload=Order))}, default=Process(IntoTopic("other"))
    )
    return StreamFlow(
        "orders",
        FromTopic("orders.raw", Order),
        Process(check, fork),
        errors=[ErrorRoute(tuple(ErrorKind), IntoTopic("failed"))],
    )


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("orders.raw", "spanish", "other", "failed"):
        broker.create_topic(topic)
    return broker.bootstrap


def live(served: Served) -> LiveDocument:
    return msgspec.json.decode(served.get("/live.json").content, type=LiveDocument)


def nodes(told: LiveDocument) -> dict[str | None, LiveNode]:
    return {node.step_id: node for node in told.nodes}


def until(served: Served, condition: Callable[[LiveDocument], bool]) -> LiveDocument:
    told: list[LiveDocument] = []

    def found() -> bool:
        told.append(live(served))
        return condition(told[-1])

    served.wait(found)
    return told[-1]


def test_the_document_tells_the_graph_with_what_came_to_each_node(bootstrap: str) -> None:
    with serving(bootstrap, of=orders()) as served:
        produce(bootstrap, "orders.raw", *(b'{"id":%d}' % n for n in (1, 2, -1, 0)), b'{"id":3,"country":"pt"}', b"no")
        told = until(served, lambda told: told.totals.read == 6 and told.now.lag_records == 0)
        served.wait(lambda: live(served).state == "running")
        found = nodes(told)
        plan = compile_flow(orders(), config=config_for(bootstrap))
        drawn = re.findall(r"^ +(\w+)[\[({]+\"", plan.explain("mermaid"), re.MULTILINE)
        assert {node.id for node in told.nodes} == {one for one in drawn if one != "process"}
        assert {edge.target for edge in told.edges} <= {node.id for node in told.nodes}
        assert (told.flow, told.delivery, told.group) == ("orders", "at_least_once", "readers")
        source, checked, fork = found["orders.source"], found["orders.check"], found["orders.fork"]
        assert (source.topics, source.came, source.left, source.failed) == (("orders.raw",), 6, 5, 1)
        assert (checked.came, checked.left, checked.failed, checked.dropped) == (5, 3, 1, 1)
        assert (fork.came, fork.estimated) == (3, False)
        assert [node.came for node in told.nodes if node.topics == ("spanish",)] == [2]
        assert [node.came for node in told.nodes if node.topics == ("other",)] == [1]
        assert [node.came for node in told.nodes if node.topics == ("failed",)] == [2]
        assert found["orders.es.label"].estimated
        assert checked.batch_s is not None
        assert told.totals.written + told.totals.dropped + told.totals.failed == told.totals.read
        assert told.now.latency_p95_s is not None
        assert {(part.topic, part.worker) for part in told.partitions} == {("orders.raw", 0)}
        assert sum(part.committed_offset or 0 for part in told.partitions) == 6
        assert all(part.committed_offset == part.end_offset for part in told.partitions)
        assert told.process.instance


def test_rates_and_samples_follow_what_happens(bootstrap: str) -> None:
    with serving(bootstrap, of=orders()) as served:
        produce(bootstrap, "orders.raw", *(b'{"id":%d}' % n for n in (1, 2, -1, 0)))
        told = until(served, lambda told: told.now.failed_per_s > 0 and bool(told.history.read_per_s))
        assert told.now.read_per_s > 0
        assert nodes(told)["orders.check"].came_per_s
        lengths = {len(getattr(told.history, name)) for name in told.history.__struct_fields__[2:]}
        assert lengths == {len(told.nodes[0].history.came_per_s)}
        assert told.history.last_at is not None


def test_recent_errors_name_the_step_and_hide_secrets_and_payloads(bootstrap: str) -> None:
    with serving(bootstrap, of=orders()) as served:
        produce(bootstrap, "orders.raw", b'{"id":-815347}', b'{"id":"815347"}')
        told = until(served, lambda told: len(told.errors) == 2)
        by_kind = {error.kind: error for error in told.errors}
        task, wire = by_kind["task"], by_kind["wire"]
        assert (task.step, task.error_type, task.count) == ("orders.check", "builtins.ValueError", 1)
        assert task.reason == "cannot connect: password=***"
        assert task.raised_at is not None
        assert Path(task.raised_at.rpartition(":")[0]).name == Path(__file__).name
        assert (wire.step, wire.topic) == ("orders.source", "orders.raw")
        assert wire.offset is not None
        assert b"815347" not in served.get("/live.json").content


def test_records_that_a_node_keeps_are_told_at_the_node(broker: EmbeddedBroker) -> None:
    for topic in ("orders.raw", "out", "failed"):
        broker.create_topic(topic)
    flow = StreamFlow(
        "orders",
        FromTopic("orders.raw", Order),
        Process(label, CollectBatch(max_records=100, timeout_ms=60_000), ForEach()),
        IntoTopic("out"),
        IntoTopic("failed"),
    )
    with serving(broker.bootstrap, of=flow) as served:
        produce(broker.bootstrap, "orders.raw", *(b'{"id":%d}' % n for n in range(1, 8)))
        told = until(served, lambda told: told.now.buffered == 7)
        assert {node.step_id: node.buffered for node in told.nodes if node.buffered} == {"orders.collect_batch": 7}


def test_the_page_loads_nothing_from_elsewhere_and_runs_no_foreign_script(bootstrap: str) -> None:
    with serving(bootstrap, of=orders()) as served:
        page = served.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        for name in {"live.js", "live.css", "live.json"} | set(named):
            answer = served.get(f"/{name}")
            assert answer.status_code in (200, 503), name
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
        assert served.get("/live.js").headers["content-type"] == "text/javascript; charset=utf-8"
        assert served.get("/elsewhere").status_code == 404


def test_a_name_of_elsewhere_that_leads_here_reads_nothing(bootstrap: str) -> None:
    with serving(bootstrap, of=orders()) as served:
        for host, status in (
            ("rebound.example", 404),
            ("[::1", 404),
            ("localhost:9100", 200),
            ("127.0.0.1", 200),
            ("[::1]:80", 200),
        ):
            assert served.get("/live.json", Host=host).status_code == status, host
        # What scrapes may come by any name.
        assert served.get("/metrics", Host="rebound.example").status_code == 200


def test_texts_of_the_flow_never_become_html() -> None:
    script = (PAGE / "live.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|DOMParser", script)
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|style=", page)


def test_browsers_that_hang_or_hammer_hold_up_nothing(bootstrap: str) -> None:
    over = threading.Event()
    with serving(bootstrap, of=orders()) as served:
        address = httpx.URL(served.observer.address or "")
        where = (address.host, address.port or 0)
        hanging = [socket.create_connection(where) for _ in range(3)]
        deaf = []
        for _ in range(3):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            one.connect(where)
            one.sendall(b"GET /live.json HTTP/1.0\r\n\r\n")
            deaf.append(one)

        def hammer() -> None:
            while not over.is_set():
                try:
                    httpx.get(f"{address}/live.json", timeout=2)
                except httpx.HTTPError:
                    pass  # sent away, since too many ask at once

        hammers = [threading.Thread(target=hammer) for _ in range(2)]
        for thread in hammers:
            thread.start()
        try:
            produce(bootstrap, "orders.raw", *(b'{"id":%d}' % n for n in range(1, 2001)))
            counts = served.runner.metrics
            assert counts is not None
            served.wait(lambda: counts.read().durable == 2000)
        finally:
            over.set()
            for thread in hammers:
                thread.join()
            for one in (*hanging, *deaf):
                one.close()


def test_a_fault_of_the_picture_is_none_of_the_flow(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(bootstrap, of=orders()) as served:

        def broken(*_: object) -> FlowCounts:
            raise RuntimeError("broken")

        monkeypatch.setattr("loom.streaming.runtime.telemetry.live.LivePicture._look", broken)
        produce(bootstrap, "orders.raw", b'{"id":1}')
        served.wait(lambda: served.value("durable_records_total", flow="orders") == 1)
        # A document makes a look of its own where the last one is old.
        served.wait(lambda: served.get("/live.json").status_code == 500)
        assert served.get("/healthz").status_code == 200
