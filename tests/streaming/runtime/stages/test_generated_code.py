"""The Python that a plan is run by, held against a copy that people have read.

Where a change to it is meant, `LOOM_WRITE_GOLDEN=1` writes the copy; read what has changed before you commit it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    CollectBatch,
    Drain,
    ErrorEnvelope,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    Router,
    StreamFlow,
    Tombstone,
    compile_flow,
    payload,
    step,
)

GOLDEN = Path(__file__).parent / "golden" / "generated_code.txt"
SECRET = "hunter2-in-a-password"


class Order(LoomFrozenStruct):
    country: str
    total: float


@step
def validate(order: Order) -> Order | None:
    return order if order.total else None


class Price(RecordStep[Order, Order]):
    """A step that is handed the message."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def execute(self, message: Message[Order]) -> Order:
        return Order(message.payload.country, message.payload.total * self.factor)


def config(**consumer: Any) -> dict[str, Any]:
    security = {"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "ann", "sasl_password": SECRET}
    address = {"brokers": ["localhost:9092"], "security": security}
    return {
        "kafka": {
            "consumer": {**address, "group_id": "orders", "delivery": "at_least_once", **consumer},
            "producer": address,
        }
    }


ROUTED = StreamFlow(
    "orders",
    FromTopic("raw", Order),
    Process(
        validate,
        Router.by(payload.country, {"ES": Process(Price), "XX": Process(Drain())}, default=Process(Price(2.0))),
    ),
    IntoTopic("priced"),
    errors=IntoTopic("errors"),
)


def code_of(flow: StreamFlow[Any, Any], **consumer: Any) -> str:
    return compile_flow(flow, config=config(**consumer)).explain("code")


def test_the_code_of_a_flow_is_what_people_have_read() -> None:
    written = code_of(ROUTED).replace(__name__, "orders") + "\n"
    if os.environ.get("LOOM_WRITE_GOLDEN"):
        GOLDEN.write_text(written)
    assert written == GOLDEN.read_text(), "the code has changed; see the top of this file"


def test_the_code_is_python() -> None:
    compile(code_of(ROUTED), "orders", "exec")


def test_the_code_shows_the_step_in_the_loop_and_as_a_function() -> None:
    loop, function, *_ = code_of(ROUTED).split("\n\n")
    assert loop.startswith("# flow orders: the loop over one batch of records\n")
    assert function.startswith("# [0] orders.validate: for a record that left the loop\n")
    assert ".validate\n" in loop
    assert "for origin in origins:" in loop
    assert "for origin in origins:" not in function


def test_nodes_that_are_not_written_and_sources_that_need_more_than_the_value_are_told() -> None:
    collected = StreamFlow(
        "lines", FromTopic("raw", Order), Process(CollectBatch(10, 100), ForEach()), IntoTopic("out")
    )
    assert "lines.collect_batch: not generated" in code_of(collected)
    replayed = StreamFlow("again", FromTopic("dead", ErrorEnvelope[Order]), Process(Drain()))
    assert code_of(replayed).startswith("# flow again: each record is decoded by itself and handed to the first node\n")


def test_a_tombstone_step_is_shown_too() -> None:
    @step
    def kept(order: Order | Tombstone) -> Order | Tombstone:
        return order

    flow = StreamFlow("kept", FromTopic("raw", Order), Process(kept), IntoTopic("out"))
    assert "kept.kept: for a record that left the loop" in code_of(flow)


@pytest.mark.parametrize(
    "name", ["two\nlines", "nothing\0here", "lone \udc80 surrogate", 'it\'s "quoted" # so', "precio €"]
)
def test_a_strange_name_does_not_get_into_the_code(name: str) -> None:
    class Named(RecordStep[Order, Order]):
        def execute(self, message: Message[Order]) -> Order:
            return message.payload

    Named.name = name
    flow = StreamFlow("strange", FromTopic("raw", Order), Process(Named, Drain(name=name + "!")))
    compile(code_of(flow), "strange", "exec")


def test_the_code_holds_no_secret() -> None:
    flow = StreamFlow("safe", FromTopic("raw", Order), Process(Price(factor=1234.5)), IntoTopic("out"))
    said = code_of(flow)
    assert SECRET not in said
    assert "1234.5" not in said


def test_showing_the_code_connects_to_nothing_and_loads_no_engine() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[4])!r})\n"
        "import importlib.util as u\n"
        f"spec = u.spec_from_file_location('shown', {__file__!r})\n"
        "shown = sys.modules['shown'] = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(shown)\n"
        "assert 'def run(origins)' in shown.code_of(shown.ROUTED)\n"
        "assert 'bytewax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
