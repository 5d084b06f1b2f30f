"""A config that a flow compiles with: what it says is kept, the Kafka sections that it lacks are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom.core.config import ConfigContext, ConfigError

__all__ = ["with_kafka_sections"]

#: no broker listens there
_NOBODY = ["127.0.0.1:1"]
_GROUP = "test"


def with_kafka_sections(config: ConfigContext | Mapping[str, Any] | None, source: str) -> ConfigContext:
    """The config with a `kafka.consumer` and a `kafka.producer`; `source` is the logical name of what is read.

    A section that is filled in names the same cluster as the existing one, so that what the compiler checks
    across both (loops, exactly-once) comes out as it will in production.
    """
    context = config if isinstance(config, ConfigContext) else ConfigContext.from_dict(config or {})
    missing: dict[str, Any] = {}
    if _value(context, "kafka.consumer") is None:
        missing["consumer"] = {"group_id": _GROUP, **_cluster(context, "kafka.producer")}
    if _value(context, "kafka.producer") is None:
        missing["producer"] = _cluster(context, f"kafka.consumers.{source}", "kafka.consumer")
    return context.overlaid({"kafka": missing}) if missing else context


def _cluster(context: ConfigContext, *neighbours: str) -> dict[str, Any]:
    """The brokers of the first neighbour that names some, and what it proves itself with."""
    for neighbour in neighbours:
        brokers = _value(context, f"{neighbour}.brokers")
        if brokers is not None:
            security = _value(context, f"{neighbour}.security")
            return {"brokers": brokers} if security is None else {"brokers": brokers, "security": security}
    return {"brokers": _NOBODY}


def _value(context: ConfigContext, key: str) -> Any:
    """What lies at a key; `None` where nothing does. What does not resolve is there all the same: the compiler tells."""
    if not context.has(key):
        return None
    try:
        return context.raw(key)
    except ConfigError:
        return _NOBODY
