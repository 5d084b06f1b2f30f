"""Replays that go in a circle: dead letters that are written where their flow reads again, and fail again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loom.core.config import ConfigError
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import CompiledSource, CompiledTopic, Reads
from loom.streaming.flow import StreamFlow
from loom.streaming.kafka.settings import KafkaSettings, KafkaSettingsError

__all__ = ["warn_replays"]


def warn_replays(
    source: CompiledSource,
    outputs: Iterable[CompiledTopic],
    beside: Iterable[StreamFlow[Any, Any]],
    kafka: KafkaSettings | None,
    issues: Issues,
) -> None:
    """Warn where a flow that reads dead letters may be handed them again: seen in the flows `beside` it, or not bounded."""
    if source.reads is not Reads.DEAD_LETTERS or kafka is None:
        return
    limit = source.settings.replay_limit
    bound = (
        "without end, since replay_limit is off"
        if limit is None
        else f"until it has failed more than {limit} times (replay_limit)"
    )
    others = [(other.name, *_ends(other, kafka)) for other in beside]
    for output in outputs:
        names = [name for name, reads, fails in others if output.topic in reads and fails & set(source.topics)]
        if names:
            issues.warn(
                Code.TOPIC_LOOP,
                f"a circle: the flow {names[0]!r} reads {output.topic!r} and sends what fails there to the dead letters that "
                f"this flow reads; a record that fails each time goes round {bound}",
                where=output.where,
                path=output.path,
                remedy="let the steps of this flow repair what made the record fail",
            )
        elif limit is None:
            issues.warn(
                Code.TOPIC_LOOP,
                f"dead letters are written to {output.topic!r} however often they have failed",
                where=output.where,
                path=output.path,
                remedy="set replay_limit of the consumer, unless nothing that reads this topic has an error route to it",
            )


def _ends(flow: StreamFlow[Any, Any], kafka: KafkaSettings) -> tuple[set[str], set[str]]:
    """The topics that a flow reads, and those of its error routes, under this config; none where it does not fit."""
    try:
        reads = set(kafka.consumer_for(flow.source.name).topics or (flow.source.name,))
        routes = [route.output.name for route in flow.error_routes]
        return reads, {kafka.producer_for(name).topic or name for name in routes}
    except (ConfigError, KafkaSettingsError):
        return set(), set()
