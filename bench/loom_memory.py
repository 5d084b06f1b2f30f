"""Loom in memory: a declared flow, compiled and run as in production, but for its two ends.

Records come from a list and results end in one, through the same engine, source loop, stage and sink part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bench.memory import let_go
from bench.observed import METRICS, collector, traces
from bench.orders import Order, PricedOrder, price, validate
from loom.core.observability import ObservabilityRuntime
from loom.streaming import FromTopic, IntoTopic, Message, Process, RecordStep, StreamFlow, step
from loom.streaming.compiler import compile_flow
from loom.streaming.kafka.record_accessor import RECORDS
from loom.streaming.record import KafkaRecord
from loom.streaming.runtime.assembly import Transport
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.engine import EngineName, engine_for, load_engine
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.settings import BytewaxRuntimeConfig
from loom.streaming.runtime.source_loop import SourceLoop
from loom.streaming.runtime.telemetry.serving import serving_metrics

BATCH = 1_000

check_step = step(validate)
price_step = step(price)


class Check(RecordStep[Order, Order]):
    def execute(self, message: Message[Order]) -> Order:
        return validate(message.payload)


class Price(RecordStep[Order, PricedOrder]):
    def execute(self, message: Message[Order]) -> PricedOrder:
        return price(message.payload)


def _flow(*steps: Any) -> StreamFlow[Order, PricedOrder]:
    return StreamFlow(
        "bench", FromTopic("in", payload=Order), Process(*steps), output=IntoTopic("out"), errors=IntoTopic("errors")
    )


_ADDRESS = {"brokers": ["in memory"]}
CONFIG: dict[str, Any] = {"kafka": {"consumer": {**_ADDRESS, "group_id": "bench"}, "producer": _ADDRESS}}


def as_records(values: Sequence[bytes]) -> list[KafkaRecord]:
    """What a source would hand over: made beforehand, since the other contenders read no records at all."""
    return [KafkaRecord("in", b"key", value, (), 0, offset, 1) for offset, value in enumerate(values)]  # type: ignore[arg-type]


def run_step(records: Sequence[KafkaRecord]) -> int:
    """Two `@step` functions."""
    return run_in_memory(_flow(check_step, price_step), records)


def run_loop_step(records: Sequence[KafkaRecord]) -> int:
    """The same two on the plain loop."""
    return run_in_memory(_flow(check_step, price_step), records, "loop")


def run_record_step(records: Sequence[KafkaRecord]) -> int:
    """The same as `RecordStep`s, which are handed a `Message`."""
    return run_in_memory(_flow(Check, Price), records)


def run_metrics(records: Sequence[KafkaRecord]) -> int:
    """The two functions, with metrics that nobody scrapes."""
    return run_in_memory(_flow(check_step, price_step), records, observed=METRICS)


def run_traces(records: Sequence[KafkaRecord]) -> int:
    """The same with traces at 1 %, to a collector that answers."""
    return run_in_memory(_flow(check_step, price_step), records, observed=traces(collector()))


def run_in_memory(
    flow: StreamFlow[Any, Any],
    records: Sequence[KafkaRecord],
    engine: EngineName | None = None,
    observed: dict[str, Any] | None = None,
) -> int:
    """How many results a flow made of these records, dead letters included. `None`: the engine that a user would get.

    `observed`: the section `observability` of its config.
    """
    plan = compile_flow(flow, config=CONFIG)
    written = _Collect()
    transport = Transport(
        RECORDS,
        lambda state, make_stage: lambda _index, _count: _ListWorker(records, state, make_stage),
        lambda: written,
    )
    driver = load_engine(engine_for(engine))
    observability = ObservabilityRuntime.from_config(observed)
    built = driver.lower(plan, BuildOptions(transport=transport, observability_runtime=observability))
    with serving_metrics(observability, built, None, "bench"):
        driver.run(built.dataflow, BytewaxRuntimeConfig(), Layout())
    observability.close()
    return let_go(written.values)


class _ListWorker:
    def __init__(self, records: Sequence[KafkaRecord], state: Any, make_stage: Any) -> None:
        feed = SourceLoop(_ListReader(records), make_stage(), state, None, batch_size=BATCH)
        self.next_batch = feed.next_batch

    def close(self) -> None:
        """Nothing is open."""


class _ListReader:
    def __init__(self, records: Sequence[KafkaRecord]) -> None:
        self._records = records
        self._at = 0

    def read(self, most: int) -> tuple[Sequence[KafkaRecord], dict[Any, int], bool]:
        batch = self._records[self._at : self._at + most]
        self._at += most
        return batch, {}, self._at >= len(self._records)


class _Collect:
    """Keeps the values, as the plain loop does."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def write(self, results: Iterable[Any]) -> None:
        self.values.extend([result[1] for result in results])

    def serve(self) -> None:
        """Nothing is on its way."""

    def flush(self, positions: Any) -> None:
        """Nothing is on its way."""

    def close(self) -> None:
        """Nothing is open."""
