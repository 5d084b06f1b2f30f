"""The in-process broker: enough Kafka for a demo, a development run and most tests, without a JVM.

It is the client library's own test broker. It keeps a few MB per partition, in memory, answers no admin request and
lives as long as this object: wrong for load, durability and fencing.
"""

from __future__ import annotations

from types import TracebackType

from confluent_kafka import Producer

from loom.streaming.kafka.client_config import CLIENT_LOG

__all__ = ["EmbeddedBroker"]

_TIMEOUT = 5.0


class EmbeddedBroker:
    """A Kafka broker inside this process; any client of any process can connect to it.

    It keeps a few MB per partition, in memory, answers no admin requests and lives as long as this object. Do not use it to
    test load, durability or fencing.

    >>> with EmbeddedBroker() as broker:
    ...     partitions = broker.create_topic("orders.raw")
    ...     config = {"kafka": {"producer": {"brokers": [broker.bootstrap]}}}
    """

    def __init__(self) -> None:
        self._producer: Producer | None = Producer(
            {
                "test.mock.num.brokers": 1,
                "bootstrap.servers": "embedded",
                "enable.sparse.connections": False,  # connect at once, not when there is something to do
                "log_level": 0,
            },
            logger=CLIENT_LOG,
        )
        brokers = self._producer.list_topics(timeout=_TIMEOUT).brokers.values()
        #: `host:port`, for the `brokers` of a config
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def create_topic(self, name: str) -> int:
        """Create a topic.

        Args:
            name: its name.

        Returns:
            How many partitions it has: a fixed number of this broker.

        Raises:
            RuntimeError: if the broker is closed.
        """
        if self._producer is None:
            raise RuntimeError("the embedded broker is closed")
        # This broker makes a topic when a producer asks for it by name.
        return len(self._producer.list_topics(name, timeout=_TIMEOUT).topics[name].partitions)

    def close(self) -> None:
        """Stop the broker and forget its records. Idempotent."""
        self._producer = None

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
