"""Which client properties `extra` may not set: those with a typed key, and those that a delivery guarantee rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["CONSUMER_EXTRA", "PRODUCER_EXTRA", "refused_keys"]

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
_CONSUMER_GUARANTEES = ("isolation.level", "enable.auto.offset.store", "enable.partition.eof", "group.protocol")
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

#: client property -> the key to set instead; `None` where there is none to set
CONSUMER_EXTRA: Mapping[str, str | None] = {
    **_TYPED_ELSEWHERE,
    "group.id": "group_id",
    "auto.offset.reset": "auto_offset_reset",
    "enable.auto.commit": "delivery or enable_auto_commit",
    "auto.commit.enable": "delivery or enable_auto_commit",
    **dict.fromkeys((*_GUARANTEES, *_CONSUMER_GUARANTEES)),
}
PRODUCER_EXTRA: Mapping[str, str | None] = {
    **_TYPED_ELSEWHERE,
    "client.id": "client_id",
    **dict.fromkeys((*_GUARANTEES, *_PRODUCER_GUARANTEES)),
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
            found[key] = f"set {instead} instead" if instead else "remove it: a delivery guarantee rests on it"
    return found
