"""Loom in memory: a declared flow, compiled and run as in production, but for its two ends.

Records come from a list and results end in one, through the same engine operators, stage and sink part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.run import cli_main

from bench.orders import Order, PricedOrder, price, validate
from loom.streaming import FromTopic, IntoTopic, Message, Process, RecordStep, StreamFlow, step
from loom.streaming.bytewax.adapter import lower
from loom.streaming.compiler import compile_flow
from loom.streaming.kafka.record_accessor import RECORDS
from loom.streaming.record import KafkaRecord
from loom.streaming.runtime.assembly import Transport
from loom.streaming.runtime.source_loop import SourceLoop

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


def run_record_step(records: Sequence[KafkaRecord]) -> int:
    """The same as `RecordStep`s, which are handed a `Message`."""
    return run_in_memory(_flow(Check, Price), records)


def run_in_memory(flow: StreamFlow[Any, Any], records: Sequence[KafkaRecord]) -> int:
    """How many results a flow made of these records, dead letters included."""
    plan = compile_flow(flow, config=CONFIG)
    written = _Collect()
    transport = Transport(
        RECORDS, lambda delivery, make_stage: _ListSource(records, delivery, make_stage), lambda: written
    )
    cli_main(lower(plan, transport=transport).dataflow)
    return len(written.values)


class _ListSource(FixedPartitionedSource[Any, None]):
    def __init__(self, records: Sequence[KafkaRecord], delivery: Any, make_stage: Any) -> None:
        self._feed = SourceLoop(_ListReader(records), make_stage(), delivery, None, batch_size=BATCH)

    def list_parts(self) -> list[str]:
        return ["list"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _ListPart:
        return _ListPart(self._feed)


class _ListPart(StatefulSourcePartition[Any, None]):
    def __init__(self, feed: SourceLoop) -> None:
        self._feed = feed

    def next_batch(self) -> list[Any]:
        return self._feed.next_batch()

    def snapshot(self) -> None:
        self._feed.snapshot()


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
