"""Loom in memory between ends of the caller's own: a Bytewax source that yields messages, an `IntoSink` that is handed some.

The caller decodes and encodes, so the work is that of the other contenders; what is added is a `Message` at both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.run import cli_main

from bench.loom_memory import CONFIG, check_step, price_step
from bench.memory import let_go
from bench.orders import Order, PricedOrder, decode, encode
from loom.streaming import FromTopic, IntoTopic, Message, MessageMeta, Process, StreamFlow
from loom.streaming.bytewax import build_dataflow
from loom.streaming.compiler import compile_flow

BATCH = 1_000

# Without a route for errors: their topic would want a broker.
_FLOW: StreamFlow[Order, PricedOrder] = StreamFlow(
    "bench", FromTopic("in", payload=Order), Process(check_step, price_step), output=IntoTopic("out")
)


def run(records: Sequence[bytes]) -> int:
    """How many results the sink was handed."""
    written = _Collect()
    cli_main(build_dataflow(compile_flow(_FLOW, config=CONFIG), source=_Messages(records), sink=written))
    return let_go(written.values)


class _Messages(FixedPartitionedSource[Message[Order], None]):
    def __init__(self, records: Sequence[bytes]) -> None:
        self._records = records

    def list_parts(self) -> list[str]:
        return ["list"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _MessagesPart:
        return _MessagesPart(self._records)


class _MessagesPart(StatefulSourcePartition[Message[Order], None]):
    def __init__(self, records: Sequence[bytes]) -> None:
        self._records = records
        self._at = 0

    def next_batch(self) -> list[Message[Order]]:
        batch = self._records[self._at : self._at + BATCH]
        if not batch:
            raise StopIteration
        first, self._at = self._at, self._at + len(batch)
        return [Message(decode(value), MessageMeta(f"in:0:{first + n}")) for n, value in enumerate(batch)]

    def snapshot(self) -> None:
        return None


class _Collect:
    """Keeps the values, as the plain loop does; the one partition of its own sink."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def build_partition(self, *_: Any, **__: Any) -> _Collect:
        return self

    def write_batch(self, items: list[Message[PricedOrder]]) -> None:
        self.values.extend([encode(message.payload) for message in items])

    def flush(self) -> None:
        """Nothing is on its way."""

    def close(self) -> None:
        """Nothing is open."""
