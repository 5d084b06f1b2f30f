"""Checks client properties by creating a client that knows no broker, and so connects to none.

Called before a flow runs, and by `loom check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer
from msgspec.structs import replace

from loom.core.model import LoomFrozenStruct
from loom.core.redaction import mask_values
from loom.streaming.kafka.client_config import make_client
from loom.streaming.kafka.errors import KafkaTransportError
from loom.streaming.kafka.settings import ConsumerSettings, ProducerSettings

__all__ = ["ClientRefusal", "client_refusals"]

_BROKERS = "bootstrap.servers"
_FILES = ("ssl_ca_location", "ssl_certificate_location", "ssl_key_location")


class ClientRefusal(LoomFrozenStruct):
    """One thing that is wrong, and the key below the client's section that it is about, as segments."""

    key: tuple[str, ...]
    message: str
    remedy: str | None = None


def client_refusals(
    settings: ConsumerSettings | ProducerSettings, *, transactional: bool = False, files: bool = True
) -> Iterator[ClientRefusal]:
    """Everything that keeps a client from being made with these settings.

    Without `files` nothing is said of certificates and keys: they lie on another machine.
    """
    security = settings.security
    if not settings.extra and security is None:
        return  # every property is one of ours
    missing = [key for key in _FILES if files and (path := getattr(security, key, None)) and not Path(path).is_file()]
    for key in missing:
        yield ClientRefusal(("security", key), "there is no such file on this machine", "mount it, or correct the path")
    client_class = Consumer if isinstance(settings, ConsumerSettings) else Producer

    def refused(extra: dict[str, Any]) -> str | None:
        properties = {
            key: value
            for key, value in replace(settings, extra=extra).to_confluent_config().items()
            if key != _BROKERS and not callable(value) and not (key.startswith("ssl.") and (missing or not files))
        }
        if transactional:
            properties["transactional.id"] = "probe"
        why = _refused(client_class, properties)
        return mask_values(why, list(settings.extra.values())) if why is not None else None

    together = refused(settings.extra)
    if together is None:
        return
    without = refused({})
    alone = {key: refused({key: value}) for key, value in settings.extra.items()} if without is None else {}
    guilty = {key: why for key, why in alone.items() if why is not None}
    yield from (ClientRefusal(("extra", key), why) for key, why in guilty.items())
    if not guilty:
        yield ClientRefusal((), without or together)


def _refused(client_class: type[Any], properties: dict[str, Any]) -> str | None:
    try:
        client = make_client(client_class, properties | {"log_level": 0})
    except KafkaTransportError as error:
        return str(error)
    if client_class is Consumer:
        client.close()
    return None
