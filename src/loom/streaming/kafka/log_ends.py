"""Where logs end, asked with a client of its own, so that a flow that stands still is no reason not to know."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from loom.streaming.kafka.client_config import kafka_error, make_client
from loom.streaming.kafka.cluster_faults import ClusterFaults
from loom.streaming.kafka.errors import BrokerUnavailableError
from loom.streaming.kafka.reserved_properties import shared_properties
from loom.streaming.record import TopicPartition

__all__ = ["LogEnds"]


class LogEnds:
    """A client that asks for the ends of logs. Used by one thread.

    Args:
        config: the properties of a client of the same cluster.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = shared_properties(config)
        self._faults = ClusterFaults(config)
        self._client: AdminClient | None = None

    def fetch(self, partitions: Collection[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        """The end of each log; a partition that does not answer is left out.

        Args:
            partitions: whose logs; with none, only whether a broker answers is found out.
            timeout_s: how long the brokers have to answer, in seconds.

        Raises:
            BrokerUnavailableError: if no broker answers.
        """
        try:
            if self._client is None:
                self._client = make_client(AdminClient, self._config, self._faults)
            if not partitions:
                self._client.list_topics(timeout=timeout_s)
                return {}
            latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
            asked = {ClientPartition(*partition): latest for partition in partitions}
            answers = self._client.list_offsets(asked, request_timeout=timeout_s)
        except KafkaException as error:
            raise BrokerUnavailableError(self._reason(kafka_error(error).str())) from None
        ends: dict[TopicPartition, int] = {}
        reason = ""
        for partition, answer in answers.items():
            try:
                found = answer.result(timeout_s)
            except KafkaException as error:
                reason = kafka_error(error).str()
            except FutureTimeoutError:
                reason = "no answer"
            else:
                ends[TopicPartition(partition.topic, partition.partition)] = found.offset
        if not ends:
            # Lets the client say what is wrong.
            self._client.poll(0)
            raise BrokerUnavailableError(self._reason(reason))
        return ends

    def _reason(self, found: str) -> str:
        return f"{self._faults.brokers}: {self._faults.explain() or found}"
