"""Where a flow begins and ends: topics by their logical names.

The config maps logical names to brokers and physical topics; a flow names none of those.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from loom.core.model import LoomFrozenStruct
from loom.streaming.message import Message
from loom.streaming.nodes.shape import StreamShape

__all__ = ["FromTopic", "IntoTopic", "PartitionGuarantee", "PartitionPolicy", "PartitionStrategy"]

P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)


class FromTopic(LoomFrozenStruct, Generic[P]):
    """Read records of one payload type from a logical topic.

    `payload` is a `LoomStruct` or `LoomFrozenStruct` type (or `bytes`, with the `bytes` format).

    >>> FromTopic("orders.raw", payload=Order)  # doctest: +SKIP
    """

    name: str
    payload: type[P]
    shape: StreamShape = StreamShape.RECORD


class PartitionGuarantee(StrEnum):
    """What a key policy promises about where the records of one key stand."""

    NONE = "none"
    BEST_EFFORT = "best_effort"
    ENTITY_STABLE = "entity_stable"


class PartitionStrategy(Protocol[P_contra]):
    """Chooses the key, and so the partition, of an outgoing message."""

    def partition_key(self, message: Message[P_contra]) -> bytes | str | None:
        """The record key to write; `None` where the message has none of its own."""


class PartitionPolicy(LoomFrozenStruct):
    """How outgoing messages get their key. Declared here, refused by the compiler until it is built."""

    strategy: Any
    guarantee: PartitionGuarantee
    allow_repartition: bool = False


class IntoTopic(LoomFrozenStruct, Generic[P]):
    """Write each message to a logical topic.

    Without `payload` the topic takes whatever type arrives. `dlq` is the logical name of the topic for
    records that the broker refuses for good (too large, not allowed).

    >>> IntoTopic("orders.priced")  # doctest: +SKIP
    """

    name: str
    payload: type[P] | None = None
    shape: StreamShape = StreamShape.RECORD
    partitioning: PartitionPolicy | None = None
    dlq: str | None = None
