"""A run that brings its own records has no broker to ask where they end."""

from __future__ import annotations

from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step
from loom.streaming.compiler import compile_flow
from loom.streaming.runtime.assembly import Transport
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.engine import load_engine
from loom.streaming.runtime.override_view import override_view
from loom.streaming.runtime.producers import NoProducers


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


def test_no_client_asks_for_the_lag_of_a_run_that_brings_its_records() -> None:
    address = {"brokers": ["broker.invalid:9092"]}
    config: dict[str, Any] = {"kafka": {"consumer": {**address, "group_id": "readers"}, "producer": address}}
    plan = compile_flow(
        StreamFlow("own", FromTopic("in", Number), Process(same), IntoTopic("out"), IntoTopic("errors")), config=config
    )
    observed = ObservabilityRuntime.from_config({"prometheus": {"config": {"port": 0}}})
    engine = load_engine("loop")
    reading = engine.lower(plan, BuildOptions(observability_runtime=observed))
    assert reading.monitor is not None
    bringing = Transport(override_view(plan.source), lambda state, make_stage: lambda index, count: None, NoProducers)  # type: ignore[arg-type,return-value]
    built = engine.lower(plan, BuildOptions(observability_runtime=observed, transport=bringing))
    assert built.metrics is not None
    assert built.monitor is None
    for each in (reading, built):
        each.finish()
