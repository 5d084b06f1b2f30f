"""Which outputs share a producer, and which clusters there are: decided here, once, for the whole plan."""

from __future__ import annotations

from loom.streaming.compiler.model import CompiledCluster, CompiledProducer
from loom.streaming.kafka.client_properties import ClientProperties
from loom.streaming.kafka.settings import ConsumerSettings, ProducerSettings

__all__ = ["ClientTable"]


class ClientTable:
    """The clusters and producers of one plan, each noted once. Numbers follow the order in which they are asked for."""

    def __init__(self) -> None:
        self._clusters: list[CompiledCluster] = []
        self._producers: list[CompiledProducer] = []

    def cluster(self, settings: ConsumerSettings) -> CompiledCluster:
        """The cluster that a consumer reads from."""
        return self._cluster(ClientProperties(settings.to_confluent_config()))

    def producer(self, settings: ProducerSettings) -> CompiledProducer:
        """The producer with these client properties; topic, format and headers are no matter of the client's."""
        properties = ClientProperties(settings.to_confluent_config())
        for known in self._producers:
            if known.properties == properties:
                return known
        made = CompiledProducer(len(self._producers), self._cluster(properties), properties)
        self._producers.append(made)
        return made

    def _cluster(self, properties: ClientProperties) -> CompiledCluster:
        for known in self._clusters:
            if known.properties.reaches_same_cluster(properties):
                return known
        made = CompiledCluster(len(self._clusters), properties.shared())
        self._clusters.append(made)
        return made
