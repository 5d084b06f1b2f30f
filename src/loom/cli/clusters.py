"""Which cluster a tool talks to: that of a config, or one that is named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from loom.cli.exit_codes import FlowNotFoundError
from loom.cli.project import project_config
from loom.core.config import ConfigContext
from loom.streaming.kafka.settings import ConsumerSettings, KafkaSettings, ProducerSettings

__all__ = ["reading_settings", "writing_settings"]

#: the group of a tool that commits nothing
_GROUP = "loom-tools"


def reading_settings(config: Path | None, brokers: str | None, *, group: str | None = None) -> ConsumerSettings:
    """How a tool reads: with the security and the `extra` of `kafka.consumer`, else of `kafka.producer`.

    `brokers` alone names a cluster without security. The group is that of the config unless one is named.

    Raises `ConfigError` for a config that does not fit, `FlowNotFoundError` if nothing names a cluster.
    """
    if brokers is not None and config is None:
        return ConsumerSettings(brokers, group or _GROUP, enable_auto_commit=False)
    kafka = _kafka(config)
    if kafka.consumer is not None or kafka.consumers:
        name = "" if kafka.consumer is not None and kafka.consumer.get("brokers") else next(iter(kafka.consumers), "")
        entry = {"group_id": _GROUP, **(kafka.consumer_entry(name) or {})}
        found = KafkaSettings(consumer=entry).consumer_for("")
    else:
        written = _producer(kafka)
        # A property of a producer means nothing to a consumer, so `extra` stays behind.
        found = ConsumerSettings(written.brokers, _GROUP, security=written.security)
    return replace(found, **_changed(brokers, group_id=group))


def writing_settings(config: Path | None, brokers: str | None) -> ProducerSettings:
    """How a tool writes: as `kafka.producer` says, else with the security of `kafka.consumer`. Raises as `reading_settings`."""
    if brokers is not None and config is None:
        return ProducerSettings(brokers)
    kafka = _kafka(config)
    if kafka.producer is not None or kafka.producers:
        found = _producer(kafka)
    else:
        read = reading_settings(config, None)
        found = ProducerSettings(read.brokers, security=read.security)
    return replace(found, topic=None, **_changed(brokers))


def _producer(kafka: KafkaSettings) -> ProducerSettings:
    named = kafka.producer is not None and kafka.producer.get("brokers")
    name = "" if named else next(iter(kafka.producers), "")
    return kafka.producer_for(name)


def _kafka(config: Path | None) -> KafkaSettings:
    context = ConfigContext.from_yaml(project_config(config))
    found = context.section_or_default("kafka", KafkaSettings, KafkaSettings())
    if not (found.consumer or found.producer or found.consumers or found.producers):
        raise FlowNotFoundError("the config names no cluster: write kafka.consumer.brokers, or --brokers HOST:PORT")
    return found


def _changed(brokers: str | None, **others: Any) -> dict[str, Any]:
    return {key: value for key, value in {"brokers": brokers, **others}.items() if value is not None}
