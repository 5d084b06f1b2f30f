"""Which group and which partitions `loom offsets` speaks of, and where it moves them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from loom.cli.clusters import reading_settings
from loom.cli.exit_codes import InputError
from loom.cli.load_flow import load_flow
from loom.cli.project import project_config, project_flow
from loom.core.config import ConfigContext
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.compile import compile_flow
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.record import TopicPartition

if TYPE_CHECKING:
    from loom.streaming.kafka.group_positions import ResetTo

__all__ = ["GroupScene", "parse_target", "scene_of"]


class GroupScene(LoomFrozenStruct):
    """A group and the topics that it reads."""

    settings: ConsumerSettings
    #: the partitions of each topic
    numbers: Mapping[str, tuple[int, ...]]
    #: the name of the flow, where one was named
    flow: str | None = None

    def partitions(self) -> list[TopicPartition]:
        """Every partition of the topics."""
        return [TopicPartition(topic, number) for topic, numbers in self.numbers.items() for number in numbers]

    def members(self) -> tuple[str, ...]:
        """The consumers that are subscribed with the group."""
        from loom.streaming.kafka.topic_admin import TopicAdmin

        return TopicAdmin(self.settings.to_confluent_config()).members(self.settings.group_id)


def scene_of(
    flow: str | None, config: Path | None, brokers: str | None, group: str | None, topics: list[str]
) -> GroupScene:
    """The group and topics of a flow, or those that are named.

    Raises `InputError` if only one of group and topics is named without a flow, `TopicMissingError` for a topic that does not
    exist.
    """
    from loom.streaming.kafka.topic_admin import TopicAdmin

    name = None
    if flow is None and group is not None and topics:
        settings = reading_settings(config, brokers, group=group)
    elif brokers is not None:
        raise InputError("--brokers needs --group and --topic too: a flow says where it reads in its config")
    else:
        plan = compile_flow(load_flow(project_flow(flow)), config=ConfigContext.from_yaml(project_config(config)))
        name = plan.name
        settings = plan.source.settings
        if group is not None:
            settings = reading_settings(config, None, group=group)
        topics = topics or list(plan.source.topics)
    found = TopicAdmin(settings.to_confluent_config()).existing(topics)
    numbers = {topic: tuple(one.number for one in info.partitions) for topic, info in found.items()}
    return GroupScene(settings, numbers, name)


def parse_target(text: str) -> ResetTo:
    """Where `--to` points.

    >>> parse_target("7").offset, parse_target("latest").end, parse_target("1970-01-01T00:00:01Z").time_ms
    (7, 'latest', 1000)

    Raises `InputError` for anything else.
    """
    from loom.streaming.kafka.group_positions import ResetTo

    if text in ("earliest", "latest"):
        return ResetTo(end=text)
    if text.isascii() and text.isdigit():
        return ResetTo(offset=int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"--to takes earliest, latest, an offset, or a time such as 2026-01-31T12:00:00Z, not {text!r}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return ResetTo(time_ms=int(moment.timestamp() * 1000))
