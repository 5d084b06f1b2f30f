"""The config of a flow, turned to the in-process broker of `loom dev`."""

from __future__ import annotations

from typing import Any

from loom.core.config import ConfigContext
from loom.streaming.kafka.settings import KafkaSettings

__all__ = ["on_one_broker"]

#: This broker answers a waiting fetch only when its time is over.
_FETCH = {"fetch.wait.max.ms": 20}
_EPOCH_MS = 200
#: keys of a consumer or a producer that speak of its cluster, or of other processes
_ELSEWHERE = frozenset(
    {
        "brokers",
        "security",
        "extra",
        "enable_auto_commit",
        "delivery",
        "membership",
        "group_instance_id",
        "session_timeout_ms",
        "max_poll_interval_ms",
        "transaction_timeout_ms",
    }
)


def on_one_broker(config: ConfigContext, bootstrap: str) -> ConfigContext:
    """The same config for a broker without security, with short epochs and at least once, which that broker can keep.

    What belongs to another machine or a long run (`extra`, recovery, supervision, metrics) is left out; sections of steps stay.
    """
    kafka = config.section_or_default("kafka", KafkaSettings, KafkaSettings())
    here: dict[str, Any] = {"brokers": [bootstrap], "security": None}
    reading = {**here, "extra": _FETCH, "delivery": "at_least_once", "auto_offset_reset": "earliest"}
    consumer = {**_kept(kafka.consumer), **reading, "group_id": (kafka.consumer or {}).get("group_id") or "dev"}
    sections = {
        "consumer": consumer,
        "producer": {**_kept(kafka.producer), **here, "extra": {}},
        "consumers": {name: {**_kept(entry), **reading} for name, entry in kafka.consumers.items()},
        "producers": {name: {**_kept(entry), **here, "extra": {}} for name, entry in kafka.producers.items()},
    }
    replaced = {
        "kafka": sections,
        "streaming": _streaming(config),
        "observability": {"log": {"enabled": False}},
    }
    return config.overlaid(dict.fromkeys(replaced)).overlaid(replaced)


def _streaming(config: ConfigContext) -> dict[str, Any]:
    """Sinks, engine and what runs async calls stay; how the flow is spread and restarted does not."""
    found = {key: config.raw(f"streaming.{key}") for key in ("sinks", "engine") if config.has(f"streaming.{key}")}
    runtime = {
        key: config.raw(f"streaming.runtime.{key}")
        for key in ("async_backend", "use_uvloop")
        if config.has(f"streaming.runtime.{key}")
    }
    return {**found, "runtime": {**runtime, "epoch_interval_ms": _EPOCH_MS}}


def _kept(entry: dict[str, Any] | None) -> dict[str, Any]:
    """What says how records are read and written, and not where."""
    return {key: value for key, value in (entry or {}).items() if key not in _ELSEWHERE}
