"""Where a flow begins and ends: topics by their logical names.

The config maps logical names to brokers and physical topics; a flow names none of those.
"""

from __future__ import annotations

from enum import StrEnum
from types import UnionType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from msgspec.structs import force_setattr

from loom.core.choices import Declaration
from loom.streaming.message import Message
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.typed import P

__all__ = [
    "FromMultiTypeTopic",
    "FromTopic",
    "IntoTopic",
    "PartitionGuarantee",
    "PartitionPolicy",
    "PartitionStrategy",
]

P_contra = TypeVar("P_contra", contravariant=True)


class FromTopic(Declaration, Generic[P]):
    """Read records of one payload type from a logical topic.

    `payload` is a `LoomStruct` or `LoomFrozenStruct` type (or `bytes`, with the `bytes` format). With
    `ErrorEnvelope[P]` the topic's dead letters are read back, their original bytes decoded as `P` where they decode.

    >>> raw = FromTopic("orders.raw", payload=Order)
    """

    name: str
    payload: type[P]
    shape: StreamShape = StreamShape.RECORD


class FromMultiTypeTopic(Declaration, Generic[P]):
    """Read records of two or more payload types from one logical topic, told apart by their message type.

    The type stands in the header `x-message-type` (or in the envelope); a record without one, or with one that none of
    `payloads` has, is a `WIRE` error. Types that share a message type are told apart by `x-message-version`. A producer
    writes both with `headers: full`, or by itself where the class names its type (`__loom_message_type__`) or the output
    holds several.

    >>> events = FromMultiTypeTopic("orders.events", payloads=(OrderPlaced, OrderCancelled))
    """

    name: str
    payloads: tuple[type[P], ...]
    shape: StreamShape = StreamShape.RECORD

    def __post_init__(self) -> None:
        super().__post_init__()
        force_setattr(self, "payloads", tuple(self.payloads))
        if len(self.payloads) < 2:
            raise ValueError("FromMultiTypeTopic() needs two payload types or more; FromTopic reads one")


class PartitionGuarantee(StrEnum):
    """What a key policy promises about the partition of records with one key.

    `NONE` writes a message without a key if the policy names none, `BEST_EFFORT` keeps the key that it came with, and
    `ENTITY_STABLE` makes it a `ROUTING` error.

    >>> PartitionGuarantee("entity_stable")
    <PartitionGuarantee.ENTITY_STABLE: 'entity_stable'>
    """

    NONE = "none"
    BEST_EFFORT = "best_effort"
    ENTITY_STABLE = "entity_stable"


@runtime_checkable
class PartitionStrategy(Protocol[P_contra]):
    """Chooses the key, and so the partition, of an outgoing message. Any object with this method is one.

    >>> class ByCountry:
    ...     def partition_key(self, message: Message[Order]) -> str:
    ...         return message.payload.country
    >>> isinstance(ByCountry(), PartitionStrategy)
    True
    """

    def partition_key(self, message: Message[P_contra]) -> bytes | str | None:
        """The record key to write.

        Args:
            message: the outgoing message.

        Returns:
            The key; text is written as UTF-8. `None` if the message has none, which `PartitionPolicy.guarantee` decides about.

        Raises:
            Exception: whatever it raises is a `ROUTING` error of that record.
        """


class PartitionPolicy(Declaration):
    """How outgoing messages get their key.

    A message that has a key keeps it unless `allow_repartition`. `ENTITY_STABLE` also keeps the partition count that the
    topic has at the start, so that a key stays in its partition while the flow runs.

    >>> class ByCountry:
    ...     def partition_key(self, message):
    ...         return message.payload.country
    >>> keyed = IntoTopic("orders.priced", partitioning=PartitionPolicy(ByCountry(), "entity_stable"))

    Args:
        strategy: a `PartitionStrategy`.
        guarantee: what happens if the strategy names no key.
        allow_repartition: whether the strategy replaces a key that a message already has.
    """

    strategy: Any
    guarantee: PartitionGuarantee
    allow_repartition: bool = False


class IntoTopic(Declaration, Generic[P]):
    """Write each message to a logical topic.

    Without `payload` the topic takes whatever type arrives; a union names several. `dlq` is the logical name of the topic for
    records that the broker refuses for good (too large, not allowed).

    >>> IntoTopic("orders.priced", dlq="orders.refused").dlq
    'orders.refused'
    """

    name: str
    payload: type[P] | UnionType | None = None
    shape: StreamShape = StreamShape.RECORD
    partitioning: PartitionPolicy | None = None
    dlq: str | None = None
