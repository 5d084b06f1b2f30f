"""Client properties by what they are for: those that `extra` may not set (they have a typed key, or a delivery guarantee
rests on them), and those that only a consumer or a producer knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loom.core.config.field_error import FieldError

__all__ = ["CONSUMER_EXTRA", "PRODUCER_EXTRA", "check_extra", "refused_keys", "shared_properties"]

_TYPED_ELSEWHERE = {
    "bootstrap.servers": "brokers",
    "metadata.broker.list": "brokers",
    "security.protocol": "security.protocol",
    "sasl.mechanism": "security.sasl_mechanism",
    "sasl.mechanisms": "security.sasl_mechanism",
    "sasl.username": "security.sasl_username",
    "sasl.password": "security.sasl_password",
    "ssl.ca.location": "security.ssl_ca_location",
    "ssl.certificate.location": "security.ssl_certificate_location",
    "ssl.key.location": "security.ssl_key_location",
    "ssl.key.password": "security.ssl_key_password",
}
_GUARANTEES = (
    # A second way to the properties of topics, past the names below.
    "default.topic.config",
    "enable.idempotence",
    "transactional.id",
)
_CONSUMER_GUARANTEES = (
    "isolation.level",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.protocol",
    "group.remote.assignor",
    "partition.assignment.strategy",
)
_PRODUCER_GUARANTEES = (
    "acks",
    "request.required.acks",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "retries",
    "message.send.max.retries",
    "queuing.strategy",
    "delivery.report.only.error",
    "partitioner",
)

#: client property -> the key to set instead; `None` if there is none
CONSUMER_EXTRA: Mapping[str, str | None] = {
    **_TYPED_ELSEWHERE,
    "group.id": "group_id",
    "auto.offset.reset": "auto_offset_reset",
    "enable.auto.commit": "delivery or enable_auto_commit",
    "auto.commit.enable": "delivery or enable_auto_commit",
    "group.instance.id": "group_instance_id",
    "session.timeout.ms": "session_timeout_ms",
    "max.poll.interval.ms": "max_poll_interval_ms",
    **dict.fromkeys((*_GUARANTEES, *_CONSUMER_GUARANTEES)),
}
PRODUCER_EXTRA: Mapping[str, str | None] = {
    **_TYPED_ELSEWHERE,
    "client.id": "client_id",
    **dict.fromkeys((*_GUARANTEES, *_PRODUCER_GUARANTEES)),
}

#: why some of them may not be set
_REASONS = {
    "group.protocol": "remove it: members use the classic protocol, because under the newer one a broker accepts offsets of "
    "partitions that were revoked",
    "partition.assignment.strategy": "remove it: members use cooperative-sticky, under which a rebalance stops nobody",
}


def refused_keys(extra: Iterable[str], refused: Mapping[str, str | None]) -> dict[str, str]:
    """The keys of `extra` that it may not hold, each with what to do about it.

    >>> refused_keys(["linger.ms", "acks", "client.id"], PRODUCER_EXTRA)
    {'acks': 'remove it: a delivery guarantee rests on it', 'client.id': 'set client_id instead'}
    """
    found = {}
    for key in extra:
        if key in refused:
            instead = refused[key]
            why = _REASONS.get(key, "remove it: a delivery guarantee rests on it")
            found[key] = f"set {instead} instead" if instead else why
    return found


#: What librdkafka's list of properties marks as a consumer's or a producer's, and callbacks that speak of one client's own
#: work. `error_cb` is among them, because Loom sets it for each client.
_OF_ONE_ROLE = frozenset(
    {
        "group.id",
        "group.instance.id",
        "partition.assignment.strategy",
        "session.timeout.ms",
        "heartbeat.interval.ms",
        "group.protocol.type",
        "group.protocol",
        "group.remote.assignor",
        "coordinator.query.interval.ms",
        "max.poll.interval.ms",
        "enable.auto.commit",
        "auto.commit.enable",
        "auto.commit.interval.ms",
        "enable.auto.offset.store",
        "queued.min.messages",
        "queued.max.messages.kbytes",
        "fetch.wait.max.ms",
        "fetch.queue.backoff.ms",
        "fetch.message.max.bytes",
        "max.partition.fetch.bytes",
        "fetch.max.bytes",
        "fetch.min.bytes",
        "fetch.error.backoff.ms",
        "offset.store.method",
        "offset.store.path",
        "offset.store.sync.interval.ms",
        "isolation.level",
        "enable.partition.eof",
        "check.crcs",
        "auto.offset.reset",
        "consume.callback.max.messages",
        "allow.auto.create.topics",
        "transactional.id",
        "transaction.timeout.ms",
        "enable.idempotence",
        "enable.gapless.guarantee",
        "queue.buffering.max.messages",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.ms",
        "linger.ms",
        "message.send.max.retries",
        "retries",
        "queue.buffering.backpressure.threshold",
        "compression.codec",
        "compression.type",
        "compression.level",
        "batch.num.messages",
        "batch.size",
        "delivery.report.only.error",
        "sticky.partitioning.linger.ms",
        "request.required.acks",
        "acks",
        "request.timeout.ms",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "queuing.strategy",
        "produce.offset.report",
        "partitioner",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "message.max.bytes",
        "default.topic.config",
        "on_commit",
        "on_delivery",
        "error_cb",
        "stats_cb",
        "statistics.interval.ms",
        "throttle_cb",
    }
)


def shared_properties(config: Mapping[str, Any]) -> dict[str, Any]:
    """The properties for any client of the same cluster: all except those that only a consumer or a producer knows.

    >>> shared_properties({"bootstrap.servers": "a:9092", "group.id": "g", "linger.ms": 1, "sasl.oauthbearer.config": "x"})
    {'bootstrap.servers': 'a:9092', 'sasl.oauthbearer.config': 'x'}
    """
    return {key: value for key, value in config.items() if key not in _OF_ONE_ROLE}


def check_extra(extra: Mapping[str, Any], refused: Mapping[str, str | None]) -> None:
    """Raise `FieldError` for a property in `extra` that may not be set there."""
    for key, remedy in refused_keys(extra, refused).items():
        raise FieldError("extra", f"may not set {key!r}: {remedy}")
