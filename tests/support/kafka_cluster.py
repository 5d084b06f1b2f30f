"""Three Apache Kafka brokers on this machine, each with a controller, for tests of what a client lives through when one goes.

    with KafkaCluster(tmp_path / "kafka") as kafka:
        kafka.create_topic("orders", partitions=4)
        kafka.brokers[kafka.leader("orders", 0)].kill()

Every topic, those of the coordinators too, has a copy on each broker, and a write needs two of them: with one broker away
everything goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, TopicMetadata

from tests.support.apache_kafka import READY_WITHIN, ApacheKafka, Behind, Node, cluster_id, free_port
from tests.support.kafka_io import await_groups, await_topics_listed, await_transactions, create_topic
from tests.support.proxy import Proxy
from tests.support.waiting import LONG_S

__all__ = ["KafkaCluster"]

SIZE = 3
#: how many of the three must have a record before it is acknowledged
IN_SYNC = 2
#: what a broker of three needs for the few megabytes of a test
MEGABYTES = 256
#: seconds until all is in sync after a restart. Measured: 3 to 5; a busy machine takes twenty times that.
IN_SYNC_WITHIN = 300.0
_OFFSETS, _TRANSACTIONS = "__consumer_offsets", "__transaction_state"

PROPERTIES = {
    "default.replication.factor": str(SIZE),
    "min.insync.replicas": str(IN_SYNC),
    "offsets.topic.replication.factor": str(SIZE),
    "transaction.state.log.replication.factor": str(SIZE),
    "transaction.state.log.min.isr": str(IN_SYNC),
    # A broker that is killed gives its partitions up after this; a paused one leaves the set of copies after the other. Shorter
    # ones take brokers of a busy machine for dead.
    "broker.session.timeout.ms": "6000",
    "replica.lag.time.max.ms": "6000",
    "controller.quorum.election.timeout.ms": "2000",
    "controller.quorum.fetch.timeout.ms": "4000",
    # By default half of such a heap (seen: a broker that ran out of it as it started).
    "log.cleaner.dedupe.buffer.size": "8388608",
    # Leaders go back to where they were soon after a restart, so that each broker leads again before the next one stops.
    "leader.imbalance.check.interval.seconds": "2",
    "leader.imbalance.per.broker.percentage": "0",
}


class KafkaCluster:
    """Three brokers with their data below `directory`. Ended by `with`. Start it from the main thread.

    With `proxied` each of `proxies` can keep the other brokers from reaching the broker of its number, while clients do, and
    while that broker reaches the others.
    """

    def __init__(self, directory: Path, properties: Mapping[str, str] | None = None, *, proxied: bool = False) -> None:
        ports = [(free_port(), free_port()) for _ in range(SIZE)]
        voters = ",".join(f"{number}@127.0.0.1:{controller}" for number, (_, controller) in enumerate(ports, 1))
        identifier = cluster_id()
        among = [Behind(port=free_port(), proxy=free_port()) for _ in range(SIZE)] if proxied else []
        self.proxies = [Proxy(behind.proxy, behind.port) for behind in among]
        self._open = ExitStack()
        #: broker n of the cluster is number n here and `n + 1` in its own words
        self.brokers = [
            ApacheKafka(
                directory / f"broker-{number}",
                {**PROPERTIES, **(properties or {})},
                node=Node(number, broker, controller, voters, identifier, among[number - 1] if proxied else None),
                megabytes=MEGABYTES,
            )
            for number, (broker, controller) in enumerate(ports, 1)
        ]
        self.bootstrap = ",".join(f"127.0.0.1:{broker}" for broker, _ in ports)

    def __enter__(self) -> Self:
        try:
            for proxy in self.proxies:
                self._open.enter_context(proxy)
            for broker in self.brokers:
                broker.launch()
            self._await_ready()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Nothing is kept: an orderly stop of all three would wait for a quorum that is gone.
        self._kill()

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic, wait until all its partitions have a leader, and return its name."""
        return create_topic(self.bootstrap, name, partitions, config, replicas=SIZE)

    def leader(self, topic: str, partition: int) -> int:
        """The index of the broker that leads a partition."""
        return self._topics()[topic].partitions[partition].leader - 1

    def group_coordinator(self, group: str) -> int:
        """The index of the broker that keeps the offsets of a group."""
        return self._leader_for(_OFFSETS, group)

    def transaction_coordinator(self, transactional_id: str) -> int:
        """The index of the broker that ends the transactions of an id."""
        return self._leader_for(_TRANSACTIONS, transactional_id)

    def await_in_sync(self, within: float = IN_SYNC_WITHIN) -> None:
        """Return when every broker has a copy of everything and leads what it is to lead."""
        deadline = time.monotonic() + within
        left = ["nothing has answered"]
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not in sync after {within:.0f} s: {left[:5]}\n{self._log_tails()}")
            time.sleep(0.2)
            left = self._lagging()

    def mend(self) -> None:
        """Start again what has ended, wake what is paused, connect what is cut off; returns when all is in sync."""
        for proxy in self.proxies:
            proxy.mend()
        for broker in self.brokers:
            if broker.alive:
                broker.resume()
            else:
                broker.launch()
        self.await_in_sync()

    def restart(self, index: int) -> None:
        """Stop one broker in order and start it again, on its data; returns when all is in sync."""
        self.brokers[index].stop()
        self.brokers[index].launch()
        self.await_in_sync()

    def _lagging(self) -> list[str]:
        try:
            topics = self._topics()
        except KafkaException as error:
            return [str(error)]
        return [
            f"{name}[{number}] {found.isrs} of {found.replicas}, led by {found.leader}"
            for name, topic in topics.items()
            for number, found in topic.partitions.items()
            if len(found.isrs) < len(found.replicas) or found.leader != found.replicas[0]
        ]

    def _leader_for(self, topic: str, name: str) -> int:
        partitions = self._topics()[topic].partitions
        return partitions[_java_hash(name) % len(partitions)].leader - 1

    def _topics(self) -> dict[str, TopicMetadata]:
        # A client of its own each time: one that knows a broker that is gone would ask it first.
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        return admin.list_topics(timeout=LONG_S).topics

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN * 3
        try:
            for wait in (await_topics_listed, await_groups, await_transactions):
                wait(self.bootstrap, deadline, while_=self._all_alive)
        except TimeoutError as error:
            raise RuntimeError(f"the cluster is not ready: {error}\n{self._log_tails()}") from error
        self.await_in_sync()

    def _all_alive(self) -> bool:
        return all(broker.alive for broker in self.brokers)

    def _kill(self) -> None:
        for broker in self.brokers:
            broker.kill()
        self._open.close()

    def _log_tails(self) -> str:
        return "\n".join(broker.log_tail(15) for broker in self.brokers)


def _java_hash(text: str) -> int:
    """`String.hashCode`, without its sign, as brokers choose a coordinator's partition."""
    found = 0
    for character in text:
        found = (31 * found + ord(character)) & 0xFFFFFFFF
    return found & 0x7FFFFFFF
