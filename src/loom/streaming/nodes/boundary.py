"""Where a flow begins and ends: topics by their logical names.

The config maps logical names to brokers and physical topics; a flow names none of those.
"""

from __future__ import annotations

from enum import StrEnum
from types import UnionType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from msgspec.structs import force_setattr

from loom.core.choices import Declaration
from loom.streaming.formats.hooks import DecHook, EncHook
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


class _Decoded(Declaration, kw_only=True):
    """What sources take by keyword."""

    dec_hook: DecHook | None = None


class _Encoded(Declaration, kw_only=True):
    """What outputs take by keyword."""

    enc_hook: EncHook | None = None


class FromTopic(_Decoded, Generic[P]):
    """Read records of one payload type from a logical topic.

    >>> raw = FromTopic("orders.raw", payload=Order)
    >>> clicks = FromTopic("clicks", payload=dict[str, int])

    Args:
        name: the logical name, which the config maps to topics.
        payload: any type that msgspec reads: a `LoomFrozenStruct` or other struct, a dataclass, an attrs class, a `TypedDict`
            or `NamedTuple`, `dict[str, X]`, `list[X]`, `str`, `Any`, or a union of structs with tags; a pydantic model with
            the extra `pydantic`; or `bytes`, with `format: bytes`. With `ErrorEnvelope[P]` the topic's dead letters are read
            back, their original bytes decoded as `P` if they decode.
        shape: leave it at its default.
        dec_hook: makes instances of types that msgspec does not know; called with the type and a plain value, as msgspec's
            own `dec_hook`. What it raises is a `WIRE` error of the record.
    """

    name: str
    payload: type[P] | UnionType
    shape: StreamShape = StreamShape.RECORD


class FromMultiTypeTopic(_Decoded, Generic[P]):
    """Read records of two or more payload types from one logical topic, distinguished by their message type.

    The type is in the header `x-message-type` (or in the envelope); a record without one, or with one that none of `payloads`
    has, is a `WIRE` error. Types that share a message type are distinguished by `x-message-version`. A producer writes both with
    `headers: full`, or always if the class names its type (`__loom_message_type__`) or the output holds several.

    >>> events = FromMultiTypeTopic("orders.events", payloads=(OrderPlaced, OrderCancelled))

    Args:
        name: the logical name, which the config maps to topics.
        payloads: two types or more. Types without a class of their own (`dict`, a `TypedDict`, a union) have no message type
            and do not compile.
        shape: leave it at its default.
        dec_hook: as in `FromTopic`.

    Raises:
        ValueError: for fewer than two types.
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


class IntoTopic(_Encoded, Generic[P]):
    """Write each message to a logical topic.

    >>> IntoTopic("orders.priced", dlq="orders.refused").dlq
    'orders.refused'

    Args:
        name: the logical name, which the config maps to a topic.
        payload: the payload type, or a union of several. Without it the topic takes whatever type arrives.
        shape: what arrives; the default takes records and many.
        partitioning: how messages get their key.
        dlq: the logical name of the topic for records that the broker refuses for good (too large, not allowed).
        enc_hook: makes something that msgspec knows of an object that it does not, as msgspec's own `enc_hook`. What it
            raises is a `TASK` error of the record.
    """

    name: str
    payload: type[P] | UnionType | None = None
    shape: StreamShape = StreamShape.RECORD
    partitioning: PartitionPolicy | None = None
    dlq: str | None = None
