"""The errors of the Kafka transport, in words a person can act on. No client is imported here."""

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
    "ProducerFailedError",
    "SecondInstanceError",
    "TopicMissingError",
    "TopicsChangedError",
    "TransactionAbortedError",
    "TransactionFailedError",
]


class KafkaTransportError(LoomStreamingError):
    """Base of the errors of Kafka clients.

    >>> issubclass(BrokerUnavailableError, KafkaTransportError)
    True
    """


class BrokerUnavailableError(KafkaTransportError):
    """No broker answered in time. Exit code 5; a supervisor restarts without using up a restart.

    >>> raise BrokerUnavailableError("no Kafka broker answers at localhost:9092")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.BrokerUnavailableError: no Kafka broker answers at localhost:9092
    """


class AuthenticationFailedError(KafkaTransportError):
    """The brokers reject the identity of the client, or how it connects (SASL, TLS). Exit code 5.

    >>> raise AuthenticationFailedError("authentication failed for user 'app'")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.AuthenticationFailedError: authentication failed for user 'app'
    """


class AuthorizationFailedError(KafkaTransportError):
    """The user of the client lacks a permission that the flow needs. Exit code 5.

    >>> raise AuthorizationFailedError("orders.raw cannot be read")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.AuthorizationFailedError: orders.raw cannot be read
    """


class TopicMissingError(KafkaTransportError):
    """Topics that the flow reads or writes do not exist. Exit code 5.

    >>> raise TopicMissingError("topics that do not exist on localhost:9092: 'orders.raw' (source)")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.TopicMissingError: topics that do not exist on localhost:9092: 'orders.raw' (source)
    """


class TopicsChangedError(KafkaTransportError):
    """A topic of the source was deleted, recreated or given more partitions, and the run ended in order. Exit code 7: restart.

    >>> raise TopicsChangedError("'orders.raw' has 6 partitions instead of 4")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.TopicsChangedError: 'orders.raw' has 6 partitions instead of 4
    """


class OffsetOutOfRangeError(KafkaTransportError):
    """The log does not hold the offset at which reading should start or continue. Exit code 5; see `on_out_of_range`.

    >>> raise OffsetOutOfRangeError("the group 'orders' is at offset 3 of raw[0], but the log holds 7 to 20")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.OffsetOutOfRangeError: the group 'orders' is at offset 3 of raw[0], but the log holds 7 to 20
    """


class DeliveryFailedError(KafkaTransportError):
    """A record could not be written, and no `dlq` takes it. Exit code 1.

    >>> raise DeliveryFailedError("orders.priced refuses the record made of orders.raw[0]@7: too large")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.DeliveryFailedError: orders.priced refuses the record made of orders.raw[0]@7: too large
    """


class ProducerFailedError(DeliveryFailedError):
    """A producer has failed for good, through no fault of a record; another one can write what it could not.

    A flow under at-least-once goes on with another one; where it cannot, exit code 7: restart.

    >>> raise ProducerFailedError("nothing can be written any more: out of order sequence number")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.ProducerFailedError: nothing can be written any more: out of order sequence number
    """


class CommitError(KafkaTransportError):
    """Offsets could not be committed. Exit code 1.

    >>> raise CommitError("offsets could not be committed: Broker: Unknown topic or partition")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.CommitError: offsets could not be committed: Broker: Unknown topic or partition
    """


class TransactionAbortedError(KafkaTransportError):
    """A transaction was aborted: nothing of its epoch is visible, and no offset has moved. Exit code 7: restart.

    >>> raise TransactionAbortedError("the transaction of 'orders@orders@0' was aborted")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.TransactionAbortedError: the transaction of 'orders@orders@0' was aborted
    """


class TransactionFailedError(KafkaTransportError):
    """The transactional producer failed permanently. Exit code 8.

    >>> issubclass(FencedError, TransactionFailedError)
    True
    """


class FencedError(TransactionFailedError):
    """Another process took over the transactional id. Exit code 8: stop one of the two.

    >>> raise FencedError("another process took over the transactional id 'orders@orders@0'")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.FencedError: another process took over the transactional id 'orders@orders@0'
    """


class SecondInstanceError(KafkaTransportError):
    """Another instance or program commits for the same group. Exit code 8: stop one of them.

    >>> raise SecondInstanceError("other consumers are subscribed with the group 'orders'")
    Traceback (most recent call last):
    loom.streaming.kafka.errors.SecondInstanceError: other consumers are subscribed with the group 'orders'
    """
