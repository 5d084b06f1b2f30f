"""What the transport can fail with, in words a person can act on. No client is imported here."""

from __future__ import annotations

from loom.streaming.errors import LoomStreamingError

__all__ = [
    "AuthenticationFailedError",
    "AuthorizationFailedError",
    "BrokerUnavailableError",
    "CommitError",
    "DeliveryFailedError",
    "FencedError",
    "KafkaTransportError",
    "OffsetOutOfRangeError",
    "SecondInstanceError",
    "TopicMissingError",
    "TopicsChangedError",
    "TransactionAbortedError",
    "TransactionFailedError",
]


class KafkaTransportError(LoomStreamingError):
    """Base of the transport's errors."""


class BrokerUnavailableError(KafkaTransportError):
    """No broker answered in time."""


class AuthenticationFailedError(KafkaTransportError):
    """The brokers do not accept who the client says it is, or how it connects (SASL, TLS)."""


class AuthorizationFailedError(KafkaTransportError):
    """The client's user may not do what the flow needs."""


class TopicMissingError(KafkaTransportError):
    """Topics that the flow reads or writes do not exist."""


class TopicsChangedError(KafkaTransportError):
    """A topic of the source was deleted, recreated or given more partitions; the run ended in order, to be started again."""


class OffsetOutOfRangeError(KafkaTransportError):
    """The position to start at is no longer, or not yet, in the log."""


class DeliveryFailedError(KafkaTransportError):
    """A record could not be written, and there was nowhere else to put it."""


class CommitError(KafkaTransportError):
    """Positions could not be confirmed."""


class TransactionAbortedError(KafkaTransportError):
    """A transaction was aborted. Nothing of its epoch is visible; the flow goes on where it stood when it is started again."""


class TransactionFailedError(KafkaTransportError):
    """The transactional producer failed for good."""


class FencedError(TransactionFailedError):
    """A successor took over."""


class SecondInstanceError(KafkaTransportError):
    """Somebody else commits for the same group."""
