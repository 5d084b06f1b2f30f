"""What mypy and pyright, both strict, say of flows that are written as the docs write them: what they infer, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FLOWS = """
from collections.abc import Iterable
from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep, Broadcast, BroadcastRoute, CollectBatch, Drain, ErrorEnvelope, ErrorKind, ErrorRoute, ExpandStep, Fork, ForEach,
    FromMultiTypeTopic, FromTopic, IntoTopic, Message, Process, RecordStep, Retry, Route, Router, StreamFlow, With, WithAsync,
    msg, payload, step,
)
from loom.streaming.testing import StreamingTestRunner
from loom.streaming.kafka import ConsumerSettings, KafkaSettings, ProducerSettings

class Order(LoomFrozenStruct):
    id: int
    country: str = "ES"
class Priced(LoomFrozenStruct):
    id: int

@step
def price(order: Order) -> Priced:
    return Priced(order.id)

class Pass(RecordStep[Order, Order]):
    def execute(self, message: Message[Order]) -> Order:
        return message.payload

class Split(ExpandStep[Priced, Order]):
    def execute(self, message: Message[Priced]) -> Iterable[Order]:
        yield Order(message.payload.id)

class Bulk(BatchStep[Order, Priced]):
    def execute(self, messages: list[Message[Order]]) -> list[Priced]:
        return [Priced(one.payload.id) for one in messages]

@step
async def fetch(order: Order, client: str) -> Priced:
    return Priced(order.id)

@step(retry=Retry(3))
def again(order: Order) -> Priced | None:
    return None

RAW = FromTopic("raw", payload=Order)
PRICED = IntoTopic("priced")
ERRORS = IntoTopic("errors", dlq="dead")
ES = Process(price, IntoTopic("es"))
BY = Fork.by(payload.country, branches={"ES": ES}, default=Process(Drain()))

whole = StreamFlow("f", FromTopic("raw", payload=Order), Process(price), IntoTopic("priced"), errors=IntoTopic("errors"))
named = StreamFlow("f", RAW, Process(Pass, price), PRICED, ERRORS)
ended = StreamFlow("f", RAW, Process(BY))
keywords = StreamFlow(
    name="f", source=RAW, process=Process(price), output=PRICED, errors={ErrorKind.TASK: ERRORS}, unrouted="drop"
)
routes = StreamFlow("f", RAW, Process(price), PRICED, [ErrorRoute(ErrorKind.TASK, ERRORS)])
union = StreamFlow("f", RAW, Process(price), IntoTopic("priced", payload=Order | Priced))
either = StreamFlow("f", FromTopic("raw", payload=Order | Priced), Process(Router.by(type, {Order: Process(price)})))
plain = [FromTopic("raw", payload=dict[str, Any]), FromTopic("raw", payload=list[int]), FromTopic("raw", payload=str)]
mapping = FromTopic("raw", payload=dict[str, Any], dec_hook=lambda cls, value: cls(value))
listed = StreamFlow("f", FromTopic("raw", payload=list[Order]), Process(Drain()), IntoTopic("out", enc_hook=str))
several = StreamFlow("f", FromMultiTypeTopic("raw", payloads=(Order, Priced)), Process(Drain()))
replay = StreamFlow("f", FromTopic("errors", payload=ErrorEnvelope[Order]), Process(Drain()))
batches = StreamFlow("f", RAW, Process(CollectBatch(10, timeout_ms=100), ForEach(), price), PRICED)
router = StreamFlow("f", RAW, Process(Router.by(payload.country, {"ES": Process(price)}, default=Process(price))), PRICED)
typed: StreamFlow[Order, Priced] = StreamFlow("f", RAW, Process[Order, Priced](price), IntoTopic("priced", payload=Priced))
kafka = KafkaSettings(producer=ProducerSettings("a:1"), consumers={"raw": ConsumerSettings("a:1", "g")})

scoped = StreamFlow("f", RAW, Process(WithAsync(process=Process(fetch), client="x"), Split), IntoTopic("o", payload=Order))
retried = StreamFlow("f", RAW, Process(With(process=Process(again), rates={})), IntoTopic("o", payload=Priced))
bulk = StreamFlow("f", RAW, Process(CollectBatch(10, timeout_ms=5), Bulk), IntoTopic("o", payload=Priced))
when = Router.when([Route((payload.country == "ES") & ~msg.meta.key.isin("a"), Process(price))], default=Process(price))
cast = StreamFlow("f", RAW, Process(Broadcast(BroadcastRoute(Process(price), IntoTopic("a")))))
runner = StreamingTestRunner.from_flow(whole).with_payloads([Order(1)], key=lambda order: str(order.id)).run()

reveal_type(RAW)
reveal_type(whole)
reveal_type(scoped)
reveal_type(bulk)
reveal_type(typed)
reveal_type(price)
reveal_type(price(Order(1)))
reveal_type(again)
reveal_type(price.with_retry(Retry(2)))
reveal_type(Pass().execute)
reveal_type(runner)
reveal_type(runner.output[0].payload)
reveal_type(runner.errors)
reveal_type(runner.written("priced"))
"""


#: what is revealed, as pyright says it and as mypy does
REVEALED = [
    ("FromTopic[Order]", "loom.streaming.nodes.boundary.FromTopic[flows.Order]"),
    ("StreamFlow[Order, Any]", "loom.streaming.flow.StreamFlow[flows.Order, Any]"),
    ("StreamFlow[Order, Order]", "loom.streaming.flow.StreamFlow[flows.Order, flows.Order]"),
    ("StreamFlow[Order, Priced]", "loom.streaming.flow.StreamFlow[flows.Order, flows.Priced]"),
    ("StreamFlow[Order, Priced]", "loom.streaming.flow.StreamFlow[flows.Order, flows.Priced]"),
    (
        "StepFunction[(order: Order), Priced]",
        "loom.streaming.nodes.step.StepFunction[[order: flows.Order], flows.Priced]",
    ),
    ("Priced", "flows.Priced"),
    (
        "StepFunction[(order: Order), Priced | None]",
        "loom.streaming.nodes.step.StepFunction[[order: flows.Order], flows.Priced | None]",
    ),
    (
        "StepFunction[(order: Order), Priced]",
        "loom.streaming.nodes.step.StepFunction[[order: flows.Order], flows.Priced]",
    ),
    (
        "(message: Message[Order]) -> Order",
        "def (message: loom.streaming.message.Message[flows.Order]) -> flows.Order",
    ),
    ("StreamingTestRunner", "loom.streaming.testing.runner.StreamingTestRunner"),
    ("Any", "Any"),
    (
        "dict[ErrorKind, list[ErrorEnvelope[Any]]]",
        "dict[loom.streaming.errors.ErrorKind, list[loom.streaming.errors.ErrorEnvelope[Any]]]",
    ),
    ("list[KafkaRecord]", "list[loom.streaming.record.KafkaRecord]"),
]


@pytest.mark.slow
def test_no_documented_form_of_a_flow_asks_mypy_for_an_annotation(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "flows.py"]
    run = subprocess.run(mypy, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert [line.partition(": ")[2] for line in run.stdout.splitlines()] == [
        *(f'note: Revealed type is "{seen}"' for _, seen in REVEALED),
        "no issues found in 1 source file",
    ], run.stdout


@pytest.mark.slow
def test_pyright_strict_infers_the_same_and_nothing_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["flows.py"]}')
    pyright = [
        sys.executable,
        "-m",
        "basedpyright",
        "-p",
        str(tmp_path),
        "--pythonpath",
        sys.executable,
        "--outputjson",
    ]
    run = subprocess.run(pyright, capture_output=True, text=True, cwd=tmp_path, check=False)
    found = json.loads(run.stdout)["generalDiagnostics"]
    assert [one["message"] for one in found if one["severity"] != "information"] == []
    types = [one["message"].partition('" is ')[2].strip('"') for one in found]
    assert types == [seen for seen, _ in REVEALED]
