"""What the spans of a flow are called and say, by the semantic conventions for messaging. Called by the tracing of records."""

from __future__ import annotations

from typing import TypeAlias

from loom.core.observability.spans import AttributeValue, SpanRole, SpanShape
from loom.streaming.compiler.names import OUTPUT, child_id
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.runtime.output_table import OutputTable

__all__ = ["Coordinates", "SpanShapes", "shapes_of"]

#: topic, partition and offset of a record, as far as they are known; a `TopicPartitionOffset` is one
Coordinates: TypeAlias = tuple[str | None, int | None, int | None]


class SpanShapes:
    """The shapes of the spans of one stage, each made once.

    Args:
        flow: its name.
        group_id: the consumer group that reads.
        inside: the shapes of nodes, by their step ids, with one for each that writes to a topic.
    """

    def __init__(self, flow: str, group_id: str, inside: dict[str, SpanShape]) -> None:
        self._flow = flow
        self._group_id = group_id
        self._inside = _Nodes(flow, inside)
        #: by the partition that a record was read from, and whether its offset is known
        self._records: dict[tuple[str | None, int | None, bool], SpanShape] = {}

    def record(self, place: Coordinates) -> SpanShape:
        """The span of a record, whose offset is its one value, if it has one.

        Args:
            place: where it was read.
        """
        topic, partition, offset = place
        key = (topic, partition, offset is not None)
        # Asked by the thread of the worker and by the one that sends.
        return self._records.get(key) or self._records.setdefault(key, self._made(*key))

    def batch(self, step_id: str) -> SpanShape:
        """The span of a node at work on a batch, with the number of its records as its one value.

        Args:
            step_id: the node.
        """
        return SpanShape(
            step_id, SpanRole.INTERNAL, _about(self._flow, step_id), varying=("messaging.batch.message_count",)
        )

    def _made(self, topic: str | None, partition: int | None, with_offset: bool) -> SpanShape:
        about = {**_messaging("process", topic or ""), "messaging.consumer.group.name": self._group_id}
        if partition is not None:
            about["messaging.destination.partition.id"] = str(partition)
        about["loom.flow"] = self._flow
        varying = ("messaging.kafka.offset",) if with_offset else ()
        return SpanShape(f"process {topic}", SpanRole.CONSUMER, about, varying=varying, inside=self._inside)


class _Nodes(dict[str, SpanShape]):
    """The shapes of nodes; one that is not known yet is a node that writes nothing."""

    def __init__(self, flow: str, known: dict[str, SpanShape]) -> None:
        super().__init__(known)
        self._flow = flow

    def __missing__(self, step_id: str) -> SpanShape:
        return self.setdefault(step_id, SpanShape(step_id, SpanRole.INTERNAL, _about(self._flow, step_id)))


def shapes_of(plan: CompiledPlan, outputs: OutputTable) -> SpanShapes:
    """The shapes of the spans of a plan.

    Args:
        plan: what runs.
        outputs: where its results go.
    """
    topics: dict[str, str] = {outlet.output.step_id: outlet.output.topic for outlet in outputs.topics().values()}
    if plan.output is not None:
        # In the loop, the end of the flow goes by this name.
        topics[child_id(plan.name, OUTPUT)] = plan.output.topic
    sends = {
        step_id: SpanShape(
            f"send {topic}", SpanRole.PRODUCER, {**_about(plan.name, step_id), **_messaging("send", topic)}
        )
        for step_id, topic in topics.items()
    }
    return SpanShapes(plan.name, plan.source.settings.group_id, sends)


def _about(flow: str, step_id: str) -> dict[str, AttributeValue]:
    return {"loom.flow": flow, "loom.step": step_id}


def _messaging(operation: str, topic: str) -> dict[str, AttributeValue]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }
