"""Topics on a broker inside the test process: create, write, read back, and run a flow between them.

The fixture `loom_topics` provides it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from loom.core.config import ConfigContext
from loom.streaming.flow import StreamFlow
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.kafka.clients import KafkaProducer
from loom.streaming.kafka.codec import DecodeError, MsgspecCodec
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.embedded import EmbeddedBroker
from loom.streaming.kafka.settings import ConsumerSettings, ProducerSettings
from loom.streaming.message import Message
from loom.streaming.metrics import FlowCounts, FlowMetrics
from loom.streaming.record import KafkaRecord, TopicPartition
from loom.streaming.runtime.runner import StreamingRunner

__all__ = ["BrokerTopics"]

P = TypeVar("P")

#: This broker answers a waiting fetch only when its time is up.
_FETCH = {"fetch.wait.max.ms": 10}
#: Otherwise a producer that is used as soon as it is created pauses for half a second.
_SEND = {"linger.ms": 0, "enable.sparse.connections": False, "topic.metadata.refresh.interval.ms": 10}
_EPOCH_MS = 20
_READ_S = 20.0
#: seconds between two checks of the counters of a run
_LOOK = 0.005


class BrokerTopics:
    """Topics on an in-process broker, and flows between them, for integration tests. The fixture `loom_topics` is one.

    The broker keeps a few MB per partition.

    >>> from loom.streaming.kafka import EmbeddedBroker
    >>> with EmbeddedBroker() as broker:
    ...     topics = BrokerTopics(broker)
    ...     topics.produce("orders.raw", [Order(7)])
    ...     [message.payload.id for message in topics.read_messages("orders.raw", Order)]
    [7]

    Args:
        broker: an `EmbeddedBroker`.
    """

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self._partitions: dict[str, int] = {}

    @property
    def bootstrap(self) -> str:
        """`host:port`, for the `brokers` of a config."""
        return self._broker.bootstrap

    def create(self, *names: str) -> None:
        """Create topics; each has a fixed number of partitions, which the broker decides.

        Args:
            names: the names of the topics.
        """
        for name in names:
            self._partitions[name] = self._broker.create_topic(name)

    def produce(self, topic: str, payloads: Iterable[Any], *, key: bytes | str | None = None) -> None:
        """Write payloads as JSON to a topic, which is created if necessary. Returns when they are written.

        Args:
            topic: the topic.
            payloads: what to write.
            key: the key of all of them.
        """
        self.create(topic)
        with KafkaProducer(self._producer(), topic, object) as producer:
            for payload in payloads:
                producer.send(payload, key=key)

    def produce_records(self, records: Iterable[KafkaRecord]) -> None:
        """Write records as they are to their topics; their keys decide about partitions.

        Args:
            records: what to write.
        """
        found = list(records)
        if not found:
            return
        self.create(*dict.fromkeys(record.topic for record in found))
        with KafkaProducer(self._producer(), found[0].topic, object) as producer:
            for record in found:
                producer.send_record(record)

    def read(self, topic: str) -> list[KafkaRecord]:
        """Everything that is in a topic now, in order within each partition.

        Args:
            topic: the topic.

        Raises:
            TimeoutError: if the topic could not be read to its end within 20 s.
        """
        self.create(topic)
        partitions = [TopicPartition(topic, number) for number in range(self._partitions[topic])]
        ends = self._ends(partitions)
        reader = ConsumerClient(self._consumer("earliest"))
        try:
            reader.start(partitions, {})
            records: list[KafkaRecord] = []
            deadline = time.monotonic() + _READ_S
            while len(records) < sum(ends.values()):
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{topic} was not read to its end within {_READ_S:.0f} s: {len(records)} records"
                    )
                records += map(CLIENT_RECORDS.record, reader.read(10_000, 0.01))
        finally:
            reader.close()
        return sorted(records, key=lambda record: (record.partition, record.offset))

    def read_messages(self, topic: str, payload: type[P]) -> list[Message[P]]:
        """Everything that is in a topic now, decoded.

        Args:
            topic: the topic.
            payload: the payload type.

        Raises:
            ValueError: for a record that does not decode.
        """
        codec = MsgspecCodec(payload)
        messages = []
        for record in self.read(topic):
            decoded = codec.decode(record)
            if isinstance(decoded, DecodeError):
                raise ValueError(f"{topic}[{record.partition}]@{record.offset} does not decode: {decoded.error}")
            messages.append(decoded.message)
        return messages

    def config(self, config: Mapping[str, Any] | None = None) -> ConfigContext:
        """A config for this broker: at least once, with short epochs.

        Args:
            config: what is merged into it.
        """
        kafka = {
            "consumer": {
                "brokers": [self.bootstrap],
                "group_id": "test",
                "delivery": "at_least_once",
                "extra": _FETCH,
            },
            "producer": {"brokers": [self.bootstrap], "extra": _SEND},
        }
        ours = {"kafka": kafka, "streaming": {"runtime": {"epoch_interval_ms": _EPOCH_MS}}}
        return ConfigContext.from_dict(ours).overlaid(config or {})

    def run(
        self,
        flow: StreamFlow[Any, Any],
        *,
        inputs: int,
        config: Mapping[str, Any] | None = None,
        timeout_s: float = 30.0,
    ) -> FlowCounts:
        """Run a flow, as `loom run` would, until a number of records have ended somewhere and their results are durable.

        Args:
            flow: the flow.
            inputs: how many records of the source.
            config: merged into `config()`.
            timeout_s: how long that may take, in seconds.

        Returns:
            The counters of the run.

        Raises:
            TimeoutError: if it takes longer.
            Exception: whatever the run ends with.
        """
        runner = StreamingRunner.from_context(flow, config=self.config(config))
        over, late = threading.Event(), threading.Event()
        watcher = threading.Thread(target=_stop_when_done, args=(runner, inputs, timeout_s, over, late), daemon=True)
        watcher.start()
        try:
            runner.run()
        finally:
            over.set()
            watcher.join()
        counts = _counts(runner)
        if late.is_set():
            raise TimeoutError(
                f"after {timeout_s} s {counts.accounted} of {inputs} inputs have ended somewhere: {counts}"
            )
        return counts

    def _ends(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        reader = ConsumerClient(self._consumer("latest"))
        try:
            return reader.resolve(partitions, {}).offsets
        finally:
            reader.close()

    def _consumer(self, reset: Any) -> ConsumerSettings:
        # A group of its own, which never commits: every read starts at the beginning.
        return ConsumerSettings(
            (self.bootstrap,), "loom-topics", auto_offset_reset=reset, enable_auto_commit=False, extra=_FETCH
        )

    def _producer(self) -> ProducerSettings:
        return ProducerSettings((self.bootstrap,), extra=_SEND)


def _stop_when_done(
    runner: StreamingRunner, inputs: int, timeout_s: float, over: threading.Event, late: threading.Event
) -> None:
    deadline = time.monotonic() + timeout_s
    while not over.wait(_LOOK):
        counts = _counts(runner)
        if counts.accounted >= inputs and counts.durable >= sum(counts.outputs.values()):
            break
        if time.monotonic() > deadline:
            late.set()
            break
    runner.shutdown()


def _counts(runner: StreamingRunner) -> FlowCounts:
    return (runner.metrics or FlowMetrics()).read()
