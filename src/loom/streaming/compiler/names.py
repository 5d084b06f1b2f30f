"""Readable, deterministic step ids: the flow, the labels of the branches, the name. They are a durable contract."""

from __future__ import annotations

import re
from typing import Any

from loom.streaming.compiler.model import StepId

__all__ = [
    "ERRORS",
    "OUTPUT",
    "RESERVED",
    "SOURCE",
    "branch_label",
    "child_id",
    "engine_id",
    "into_id",
    "why_no_topic",
]

#: what is beside the process under the flow's id
SOURCE, OUTPUT, ERRORS = RESERVED = ("source", "output", "errors")

_NOT_PLAIN = re.compile(r"[^0-9A-Za-z_-]+")
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def branch_label(key: Any) -> str:
    """A branch's key as a part of a step id.

    >>> branch_label("ES"), branch_label(b"north east"), branch_label(7)
    ('es', 'north-east', '7')
    """
    text = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(getattr(key, "value", key))
    return _NOT_PLAIN.sub("-", text).strip("-").lower() or "empty"


def child_id(parent: str, name: str) -> StepId:
    """The id of something called `name` under `parent`.

    >>> child_id("orders", "price")
    'orders.price'
    """
    return StepId(f"{parent}.{name}")


def into_id(parent: str, topic: str) -> StepId:
    """The id of what writes to a topic, given by its logical name.

    >>> into_id("orders.es", "orders.priced")
    'orders.es.into-orders-priced'
    """
    return child_id(parent, f"into-{branch_label(topic)}")


def engine_id(flow: str) -> str:
    """A flow's name as the engine takes it, which reserves the dot.

    >>> engine_id("orders.v2")
    'orders-v2'
    """
    return _NOT_PLAIN.sub("-", flow) or "flow"


def why_no_topic(name: str) -> str | None:
    """Why Kafka takes this for no topic's name; `None` where it does.

    >>> why_no_topic("orders raw")
    "'orders raw' is no name of a topic"
    """
    if not name.strip():
        return "the name of a topic is empty"
    return None if _TOPIC.fullmatch(name) and name not in (".", "..") else f"{name!r} is no name of a topic"
