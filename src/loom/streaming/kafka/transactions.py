"""A transactional producer: fenced once, then one transaction per epoch, with the positions inside it.

The states and the moves between them are the type `State`; a move that is not legal is a fault of the caller. Nothing is
repaired in place: after a failure the process ends and its successor fences it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as ClientPartition

from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.client_config import CLIENT_LOG, is_denied, is_transient, kafka_error, make_client
from loom.streaming.kafka.cluster_faults import ClusterFaults, denied
from loom.streaming.kafka.errors import (
    FencedError,
    KafkaTransportError,
    TransactionAbortedError,
    TransactionFailedError,
)
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.patience import Patience, likely_reason
from loom.streaming.kafka.settings import START_TIMEOUT_MS, TRANSACTION_TIMEOUT_MS
from loom.streaming.record import TopicPartition

__all__ = ["State", "Transactions"]

#: Seconds of one call. The calls go on where they stood when they are repeated after a time-out, and between two of them
#: the caller is asked whether there is time left.
_SLICE = 0.5

#: When its last broker goes away the client starts anew from its bootstrap list (KIP-899). That drops the transaction's
#: coordinator with whatever waits for its answer, and the next call on the transaction never returns, whatever its
#: time-out says (seen with librdkafka 2.16.0: answers lost and then the connection, between positions and commit, in 3 of 12
#: tries; in none of 6 without). Without it the client reconnects.
_PROPERTIES = {"metadata.recovery.strategy": "none"}

#: Errors that say no more than that an earlier one has broken the transaction, or the producer.
_CONSEQUENCES = frozenset({KafkaError._STATE, KafkaError._FATAL})

_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


class State(Enum):
    """Where the producer stands."""

    NEW = "new"  #: not fenced yet: a predecessor may still write
    READY = "ready"  #: fenced, no transaction
    OPEN = "open"  #: a transaction is under way
    ENDED = "ended"  #: failed or closed; only a new process goes on


class Transactions:
    """The transactions of one process. Used by one thread at a time.

    `metadata` tells, by topic, what is committed beside a position. `checked` is handed the positions right before they are
    sent; it returns those that may be, or raises. `waiting` is called between the slices of every wait and may raise.
    `group_at` looks where the group stands in some partitions; it is asked only of a transaction that outlasted its time-out.
    `patience_s` is how long one call is repeated while the coordinator does not do what it is asked to.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        transactional_id: str,
        *,
        metadata: Callable[[str], str],
        waiting: Callable[[str], None],
        group_at: Callable[[Iterable[TopicPartition]], Mapping[TopicPartition, int]] = lambda _: {},
        patience_s: float = START_TIMEOUT_MS / 1000,
        checked: Callable[[Mapping[TopicPartition, int]], Mapping[TopicPartition, int]] = lambda positions: positions,
        clusters: Clusters | None = None,
    ) -> None:
        self._id = transactional_id
        self._metadata = metadata
        self._waiting = waiting
        self._group_at = group_at
        self._checked = checked
        #: where the group was found, or left by a commit; and where a commit without an answer may have left it
        self._left_at: dict[TopicPartition, int] = {}
        self._in_doubt: Mapping[TopicPartition, int] = {}
        self._patience_s = patience_s
        #: how long the broker lets a transaction stand open, in seconds, and since when the one at hand does
        self._longest_s = int(config.get("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)) / 1000
        self._open_since: float | None = None
        #: what the client has said to be the end of this producer
        self._fatal: KafkaError | None = None
        config = {**config, **_PROPERTIES, "transactional.id": transactional_id}
        self.faults = clusters.of(config) if clusters is not None else ClusterFaults(config)
        self.producer = make_client(Producer, config, self.faults, on_error=self._on_error)
        self.state = State.NEW

    def fence(self) -> None:
        """Shut out every earlier holder of this id, and let the broker end what it left open.

        When this returns, nothing of a predecessor can be committed any more, so the group's positions are final.
        """
        self._expect(State.NEW)
        self._connect()
        self._repeat(
            lambda: self.producer.init_transactions(_SLICE * 4),
            "a transaction coordinator that shuts out a predecessor",
        )
        self.state = State.READY

    def _connect(self) -> None:
        """Have a connection before the coordinator is asked for.

        A client that has none yet asks again half a second later (measured: up to 520 ms for the fencing, and 10 ms with one).
        """
        try:
            self.producer.list_topics(timeout=_SLICE)
        except KafkaException as error:
            # Fencing waits for as long as it may, and says what is wrong.
            CLIENT_LOG.info("no broker has answered the producer yet: %s", kafka_error(error).str())

    def found_at(self, positions: Mapping[TopicPartition, int]) -> None:
        """Where the group stands before our first commit."""
        self._left_at.update(positions)

    def begin(self) -> None:
        """Open a transaction, unless one is open."""
        if self.state is State.OPEN:
            return
        self._expect(State.READY)
        try:
            self.producer.begin_transaction()
        except KafkaException as error:
            raise self.failed(kafka_error(error)) from None
        self.state = State.OPEN
        self._open_since = time.monotonic()

    def commit(self, positions: Mapping[TopicPartition, int], group: Any) -> None:
        """Make everything produced since `begin`, and these positions of the group, visible together."""
        self._expect(State.OPEN)
        # Now, and not later: with positions of its own on their way the group would not answer.
        positions = self._checked(positions)
        self._in_doubt = positions
        if positions:
            offsets = [
                ClientPartition(partition.topic, partition.partition, offset, self._metadata(partition.topic))
                for partition, offset in positions.items()
            ]
            self._repeat(
                lambda: self.producer.send_offsets_to_transaction(offsets, group, _SLICE * 4),
                "the coordinators that take the positions into the transaction",
            )
        failpoint(Failpoint.POSITIONS_SENT)
        self._repeat(lambda: self.producer.commit_transaction(_SLICE * 4), "the commit of the transaction")
        self.state = State.READY
        self._open_since = None
        self._left_at.update(positions)

    def abort(self) -> KafkaError | None:
        """Give up what is open. Best effort: a successor's fencing does the same. Returns why that failed.

        A transaction that has outlasted its time-out is left to the broker, which has ended it. To abort it the client
        would ask for a new epoch, and while a successor's transaction is open the coordinator grants that to the old
        writer and shuts out the successor (seen with librdkafka 2.16 and Apache Kafka 4.1).
        """
        refused = None
        if self.state is State.OPEN and not self._outlasted():
            try:
                self.producer.abort_transaction(_SLICE * 4)
            except KafkaException as error:
                refused = kafka_error(error)
                CLIENT_LOG.info("aborting the transaction failed: %s", refused.str())
        self.state = State.ENDED
        return refused

    def _repeat(self, call: Callable[[], None], what: str) -> None:
        patience = Patience(what, self._patience_s, lambda: self.faults.explain() or likely_reason(self.producer))
        while True:
            try:
                call()
            except KafkaException as error:
                found = kafka_error(error)
                if found.txn_requires_abort() or found.fatal() or not (found.retriable() or is_transient(found)):
                    raise self.failed(found) from None
                self._waiting(f"{what}: {found.str()}")
                patience.spend(found.str())
            else:
                return

    def failure(self) -> KafkaTransportError | None:
        """Why this producer will never write again, once the client has said so."""
        return self.failed(self._fatal) if self._fatal is not None else None

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() and self._fatal is None:
            self._fatal = error

    def failed(self, error: KafkaError) -> KafkaTransportError:
        """What an error of any call of this producer means; moves to the state that follows."""
        error = self._cause_of(error)
        if error.txn_requires_abort():
            return self.given_up(error.str())
        self.state = State.ENDED
        if is_denied(error):
            return denied(error, f"the transactional id {self._id!r} cannot be used")
        if error.code() in _FENCED:
            if not self._outlasted() or self._taken_over():
                return self._fenced()
            # A broker that ends a transaction by its time-out takes the id away as a successor would.
            return TransactionAbortedError(
                f"the transaction of {self._id!r} was open for longer than transaction.timeout.ms ({self._longest_s:g} s), "
                "so the broker aborted it. Nothing of this epoch is visible and no offset has moved: restart the flow, with a "
                "longer timeout if single records take that long"
            )
        return TransactionFailedError(f"the transactional producer {self._id!r} failed permanently: {error.str()}")

    def _cause_of(self, error: KafkaError) -> KafkaError:
        """The error behind one that only says that there was one before it."""
        if self._fatal is not None:
            return self._fatal
        if error.code() not in _CONSEQUENCES:
            return error
        return self._broken_by() or self._fatal_error() or error

    def _broken_by(self) -> KafkaError | None:
        """What has broken the transaction, or the producer: where one is broken, a call that wants a sound one says so."""
        try:
            self.producer.begin_transaction()
        except KafkaException as told:
            found = kafka_error(told)
            return found if found.txn_requires_abort() or found.fatal() else None
        return None

    def _fatal_error(self) -> KafkaError | None:
        """What the client calls the end of this producer. It raises that from whichever call serves its events."""
        if self._fatal is None:
            try:
                self.producer.poll(_SLICE)
            except KafkaException as told:
                self._fatal = kafka_error(told)
        return self._fatal

    def _outlasted(self) -> bool:
        return self._open_since is not None and time.monotonic() - self._open_since > self._longest_s

    def _taken_over(self) -> bool:
        """Whether somebody has gone on where we stood still: the group is where we never left it."""
        try:
            stands = self._group_at(self._left_at)
        except KafkaTransportError as error:
            CLIENT_LOG.info("whether another process took over is not to be had: %s", error)
            return False
        return any(at not in (self._left_at[p], self._in_doubt.get(p)) for p, at in stands.items())

    def given_up(self, reason: str) -> KafkaTransportError:
        """Abort what is open, for a reason that a new start does away with, unless somebody has gone on meanwhile."""
        cause = self._broken_by()
        if cause is not None and cause.str() not in reason:
            reason = f"{reason} ({cause.str()})"
        refused = self.abort()
        if refused is not None and refused.fatal():
            return self.failed(refused)
        if self._outlasted() and self._taken_over():
            return self._fenced()
        return TransactionAbortedError(
            f"the transaction of {self._id!r} was aborted: {reason}. Nothing of this epoch is visible and no "
            "offset has moved: restart the flow"
        )

    def _fenced(self) -> FencedError:
        return FencedError(
            f"another process took over the transactional id {self._id!r}; this one ends, and nothing it has written "
            "since is visible. Two instances of one flow share a group: stop one of them"
        )

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise TransactionFailedError(
                f"the transactional producer {self._id!r} is {self.state.value} where it should be {state.value}"
            )
