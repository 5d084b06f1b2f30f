"""Kafka: settings, wire formats, clients and the in-process broker. Only this package imports the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.streaming.formats.envelope_format import MessageDescriptor, MessageEnvelope, MessageMetadata
    from loom.streaming.formats.registry import WireFormat
    from loom.streaming.headers import Headers
    from loom.streaming.kafka.clients import KafkaConsumer, KafkaProducer
    from loom.streaming.kafka.codec import DecodeError, DecodeOk, MsgspecCodec
    from loom.streaming.kafka.embedded import EmbeddedBroker
    from loom.streaming.kafka.errors import (
        AuthenticationFailedError,
        AuthorizationFailedError,
        BrokerUnavailableError,
        CommitError,
        DeliveryFailedError,
        FencedError,
        KafkaTransportError,
        OffsetOutOfRangeError,
        ProducerFailedError,
        SecondInstanceError,
        TopicMissingError,
        TopicsChangedError,
        TransactionAbortedError,
        TransactionFailedError,
    )
    from loom.streaming.kafka.format_settings import JsonSettings
    from loom.streaming.kafka.group_settings import Membership
    from loom.streaming.kafka.security_settings import KafkaSecuritySettings
    from loom.streaming.kafka.settings import (
        ConsumerSettings,
        Delivery,
        HeaderPolicy,
        KafkaSettings,
        KafkaSettingsError,
        ProducerSettings,
    )
    from loom.streaming.record import KafkaRecord, TopicPartition

__all__ = [
    "AuthenticationFailedError",
    "AuthorizationFailedError",
    "BrokerUnavailableError",
    "CommitError",
    "ConsumerSettings",
    "DecodeError",
    "DecodeOk",
    "Delivery",
    "DeliveryFailedError",
    "EmbeddedBroker",
    "FencedError",
    "HeaderPolicy",
    "Headers",
    "JsonSettings",
    "KafkaConsumer",
    "KafkaProducer",
    "KafkaRecord",
    "KafkaSecuritySettings",
    "KafkaSettings",
    "KafkaSettingsError",
    "KafkaTransportError",
    "Membership",
    "MessageDescriptor",
    "MessageEnvelope",
    "MessageMetadata",
    "MsgspecCodec",
    "OffsetOutOfRangeError",
    "ProducerFailedError",
    "ProducerSettings",
    "SecondInstanceError",
    "TopicMissingError",
    "TopicPartition",
    "TopicsChangedError",
    "TransactionAbortedError",
    "TransactionFailedError",
    "WireFormat",
]

__getattr__, __dir__ = lazy_exports(__name__)
