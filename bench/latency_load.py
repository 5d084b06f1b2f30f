"""Produces orders at a steady rate and receives what a contender makes of them. Called by the latency suite.

One thread does both, so that neither waits for the other's turn: it produces what is due, and until the next is due it
polls for what has come out. The time of production travels in the order's `placed_at`, which every contender copies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from bench.orders import decode, encode, make_orders

#: seconds within which the first record must have come out, and from one to the next
PATIENCE = 60.0
#: seconds of one wait for the last records
_SLICE = 0.1
#: other orders than these follow again and again; only their time differs
_DIFFERENT = 1_000


class _Out(msgspec.Struct):
    """What is read of a priced order."""

    placed_at: str


class Received(msgspec.Struct, frozen=True):
    """What became of one load, in seconds and per record."""

    #: from production to receipt
    latencies: list[float]
    #: by how much it was produced late; on a machine that is busy otherwise, the latencies are not worth much either
    delays: list[float]


class Load:
    """Both ends of a contender. `alive` says whether it still runs."""

    def __init__(self, bootstrap: str, source: str, target: str, partitions: int, alive: Callable[[], bool]) -> None:
        self._source = source
        self._alive = alive
        self._orders = [(order.key, decode(order.value)) for order in make_orders(_DIFFERENT)]
        # Neither side may add to what is measured: nothing lingers, nothing is waited for to fill a fetch.
        # The broker ends before these clients do, and they need not say so.
        client = {"bootstrap.servers": bootstrap, "log_level": 0}
        self._producer = Producer(client | {"acks": "all", "linger.ms": 0})
        self._consumer = Consumer(
            client
            | {
                "group.id": "bench-latency",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "fetch.min.bytes": 1,
                "fetch.wait.max.ms": 10,
            }
        )
        self._consumer.assign([TopicPartition(target, number, 0) for number in range(partitions)])
        self._read = msgspec.json.Decoder(_Out).decode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._producer.purge()
        self._consumer.close()

    def run(self, records: int, rate: int) -> Received:
        """Produce so many at this rate, and return once all of them have come out."""
        latencies: list[float] = []
        delays: list[float] = []
        began = heard = time.monotonic()
        while len(latencies) < records:
            now = time.monotonic()
            while len(delays) < records and (delay := now - began - len(delays) / rate) >= 0:
                self._produce(len(delays))
                delays.append(delay)
            left = began + len(delays) / rate - time.monotonic() if len(delays) < records else _SLICE
            message = self._consumer.poll(min(max(left, 0.0), _SLICE))
            received = time.monotonic_ns()
            if message is None:
                if received / 1e9 - heard > PATIENCE or not self._alive():
                    raise RuntimeError(f"{len(latencies)} of {records} records came out, then no more")
                continue
            if message.error() is not None:
                raise KafkaException(message.error())
            latencies.append((received - int(self._read(message.value() or b"").placed_at)) / 1e9)
            heard = received / 1e9
        self._producer.flush(30)
        return Received(latencies, delays)

    def _produce(self, number: int) -> None:
        key, order = self._orders[number % _DIFFERENT]
        stamped = msgspec.structs.replace(order, placed_at=str(time.monotonic_ns()))
        self._producer.produce(self._source, encode(stamped), key)
        self._producer.poll(0)
