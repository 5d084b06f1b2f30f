"""What a type checker says of a flow that is written as the docs write it: nothing, and no annotation is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FLOWS = """
from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    CollectBatch, Drain, ErrorEnvelope, ErrorKind, ErrorRoute, Fork, ForEach, FromMultiTypeTopic, FromTopic, IntoTopic,
    Message, Process, RecordStep, Router, StreamFlow, payload, step,
)
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
plain = [FromTopic("raw", payload=p) for p in (dict, list, str)]
mapping = FromTopic("raw", payload=dict[str, Any], dec_hook=lambda cls, value: cls(value))
listed = StreamFlow("f", FromTopic("raw", payload=list[Order]), Process(Drain()), IntoTopic("out", enc_hook=str))
several = StreamFlow("f", FromMultiTypeTopic("raw", payloads=(Order, Priced)), Process(Drain()))
replay = StreamFlow("f", FromTopic("errors", payload=ErrorEnvelope[Order]), Process(Drain()))
batches = StreamFlow("f", RAW, Process(CollectBatch(10, timeout_ms=100), ForEach(), price), PRICED)
router = StreamFlow("f", RAW, Process(Router.by(payload.country, {"ES": Process(price)}, default=Process(price))), PRICED)
typed: StreamFlow[Order, Priced] = StreamFlow("f", RAW, Process[Order, Priced](price), IntoTopic("priced", payload=Priced))
kafka = KafkaSettings(producer=ProducerSettings("a:1"), consumers={"raw": ConsumerSettings("a:1", "g")})

reveal_type(whole)
"""


@pytest.mark.slow
def test_no_documented_form_of_a_flow_asks_for_an_annotation(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "flows.py"]
    run = subprocess.run(mypy, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert [line.partition(": ")[2] for line in run.stdout.splitlines()] == [
        'note: Revealed type is "loom.streaming.flow.StreamFlow[flows.Order, Any]"',
        "no issues found in 1 source file",
    ], run.stdout
