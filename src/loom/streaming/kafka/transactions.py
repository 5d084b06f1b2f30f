"""A transactional producer: fenced once, then one transaction per epoch, with the positions inside it.

The states and the moves between them are the type `State`; a move that is not legal is a fault of the caller. A producer
that failed for good is not repaired: its owner fences it with another one, or ends.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as ClientPartition

from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.client_config import (
    CLIENT_LOG,
    is_denied,
    is_transient,
    kafka_error,
    make_client,
    raised_by,
)
from loom.streaming.kafka.cluster_faults import ClusterFaults, denied
from loom.streaming.kafka.errors import (
    FencedError,
    KafkaTransportError,
    TransactionAbortedError,
    TransactionFailedError,
)
from loom.streaming.kafka.interruptible import SLICE_S, call_interruptibly
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.patience import Patience, likely_reason
from loom.streaming.kafka.settings import START_TIMEOUT_MS, TRANSACTION_TIMEOUT_MS
from loom.streaming.record import TopicPartition

__all__ = ["State", "Transactions"]

#: Seconds of one call on a transaction. A call that is repeated after a timeout continues where it was, and between two the
#: caller decides whether there is time left.
_CALL_S = 2.0
#: seconds of a request that only helps
_LOOK_S = 0.5

#: Seconds after which a call is lost, three times what it was given. The client waits without a limit where the group's
#: coordinator has left the cluster's metadata while positions were on their way to it: it forgets the broker, and the request
#: that waits for it (librdkafka 2.10 to 2.16, its issues 5456 and 5511). Only another client ends such a wait.
_LOST_S = 6.0

#: When its last broker becomes unreachable, the client starts over from its bootstrap list (KIP-899). That drops the
#: coordinator of the transaction with whatever waits for its answer, and the next call on the transaction never returns,
#: whatever its timeout (seen with librdkafka 2.16.0: answers lost and then the connection, between offsets and commit, in 3
#: of 12 tries; in none of 6 without). Without it the client reconnects.
_PROPERTIES = {"metadata.recovery.strategy": "none"}

#: Errors that only say that an earlier one has broken the transaction, or the producer.
_CONSEQUENCES = frozenset({KafkaError._STATE, KafkaError._FATAL})

#: counts the time in which the machine was suspended, as the broker does
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


class State(Enum):
    """The state of the producer."""

    NEW = "new"  #: not fenced yet: a predecessor may still write
    READY = "ready"  #: fenced, no transaction
    OPEN = "open"  #: a transaction is open
    ENDED = "ended"  #: failed or closed; only a new process can continue


class Transactions:
    """The transactions of one process. Used by one thread at a time.

    `metadata` returns, by topic, the text that is committed with an offset. `checked` receives the offsets right before they are
    sent; it returns those that may be sent, or raises. `committed` receives them once they are the group's. `waiting` is called
    between the slices of every wait and may raise. `group_at` fetches the offsets of the group; it is called only for a
    transaction that outlasted its timeout. `patience_s` is how long one call is retried while the coordinator refuses it.
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
        committed: Callable[[Mapping[TopicPartition, int]], None] = lambda _: None,
        clusters: Clusters | None = None,
    ) -> None:
        self._id = transactional_id
        self._metadata = metadata
        self._waiting = waiting
        self._group_at = group_at
        self._checked = checked
        self._committed = committed
        #: the offsets found at the start or left by a commit; and those that a commit without an answer may have left
        self._left_at: dict[TopicPartition, int] = {}
        self._in_doubt: Mapping[TopicPartition, int] = {}
        self._patience_s = patience_s
        #: how long the broker keeps a transaction open, in seconds, and since when the current one is
        self._longest_s = int(config.get("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)) / 1000
        self._open_since: float | None = None
        #: the fatal error of this producer
        self._fatal: KafkaError | None = None
        config = {**config, **_PROPERTIES, "transactional.id": transactional_id}
        self.faults = clusters.of(config) if clusters is not None else ClusterFaults(config)
        self.producer = make_client(Producer, config, self.faults, on_error=self._on_error)
        self.state = State.NEW
        #: whether what was open has been aborted and this producer may begin again; see `go_on`
        self.can_go_on = False

    def fence(self) -> None:
        """Fence every earlier holder of this id, and let the broker abort what it left open.

        When this returns, nothing of a predecessor can be committed any more, so the offsets of the group are final.
        """
        self._expect(State.NEW)
        self._connect()
        self._repeat(
            lambda: self.producer.init_transactions(_CALL_S),
            "a transaction coordinator that shuts out a predecessor",
        )
        self.state = State.READY

    def _connect(self) -> None:
        """Connect before the coordinator is requested.

        A client that has none yet asks again half a second later (measured: up to 520 ms for the fencing, and 10 ms with one).
        """
        try:
            self.producer.list_topics(timeout=_LOOK_S)
        except KafkaException as error:
            # Fencing waits as long as allowed, and reports what is wrong.
            CLIENT_LOG.info("no broker has answered the producer yet: %s", kafka_error(error).str())

    def found_at(self, positions: Mapping[TopicPartition, int]) -> None:
        """Note the offsets of the group before our first commit."""
        self._left_at.update(positions)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These belong to other processes now: they say nothing about whether this one was replaced."""
        for partition in partitions:
            self._left_at.pop(partition, None)
        self._in_doubt = {p: offset for p, offset in self._in_doubt.items() if p in self._left_at}

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
        self._open_since = time.clock_gettime(_CLOCK)

    def commit(self, positions: Mapping[TopicPartition, int], group: Any) -> None:
        """Make everything produced since `begin`, and these positions of the group, visible together."""
        self._expect(State.OPEN)
        # Now, not later: with offsets of its own pending the group would not answer.
        positions = self._checked(positions)
        self._in_doubt = positions
        if positions:
            offsets = [
                ClientPartition(partition.topic, partition.partition, offset, self._metadata(partition.topic))
                for partition, offset in positions.items()
            ]
            self._repeat(
                lambda: self.producer.send_offsets_to_transaction(offsets, group, _CALL_S),
                "the coordinators that add the offsets to the transaction",
            )
        failpoint(Failpoint.POSITIONS_SENT)
        self._repeat(lambda: self.producer.commit_transaction(_CALL_S), "the commit of the transaction")
        self.state = State.READY
        self._open_since = None
        self._left_at.update(positions)
        self._committed(positions)

    def abort(self) -> KafkaError | None:
        """Give up what is open. Best effort: a successor's fencing does the same. Returns why that failed.

        A transaction that has outlasted its time-out is left to the broker, which has ended it. To abort it the client
        would ask for a new epoch, and while a successor's transaction is open the coordinator grants that to the old
        writer and shuts out the successor (seen with librdkafka 2.16 and Apache Kafka 4.1).
        """
        refused = None
        self.can_go_on = self.state in (State.OPEN, State.READY) and self._fatal is None and not self._outlasted()
        if self.state is State.OPEN and not self._outlasted():
            try:
                self._answered(lambda: self.producer.abort_transaction(_CALL_S), "the abort of the transaction")
            except TransactionAbortedError as lost:
                self.can_go_on = False
                CLIENT_LOG.info("%s", lost)
            except KafkaException as error:
                refused = kafka_error(error)
                self.can_go_on = False
                CLIENT_LOG.info("aborting the transaction failed: %s", refused.str())
        self.state = State.ENDED
        return refused

    def go_on(self) -> None:
        """Begin again after an abort. Nobody has taken the id meanwhile: the abort was answered under it."""
        self._expect(State.ENDED)
        if not self.can_go_on:
            raise TransactionFailedError(f"the transactional producer {self._id!r} cannot go on")
        self.can_go_on, self.state, self._open_since, self._in_doubt = False, State.READY, None, {}

    def _repeat(self, call: Callable[[], None], what: str) -> None:
        patience = Patience(what, self._patience_s, lambda: self.faults.explain() or likely_reason(self.producer))
        while True:
            try:
                self._answered(call, what)
            except KafkaException as error:
                found = kafka_error(error)
                if found.txn_requires_abort() or found.fatal() or not (found.retriable() or is_transient(found)):
                    raise self.failed(found) from None
                self._waiting(f"{what}: {found.str()}")
                patience.spend(found.str())
            else:
                return

    def _answered(self, call: Callable[[], None], what: str) -> None:
        """Make a call that may never return; raises `TransactionAbortedError` when it is lost."""
        slices = itertools.count(1)

        def check() -> None:
            # Not by the clock: a process that was frozen may have its answer a moment later.
            if next(slices) * SLICE_S >= _LOST_S:
                # The thread of the call still uses the client, which will not answer to others either.
                self.state = State.ENDED
                raise TransactionAbortedError(
                    f"the client of {self._id!r} has not come back from {what} for {_LOST_S:g} s, though it was given "
                    f"{_CALL_S:g}. It is given up, and the group's offsets tell what was committed: restart the flow"
                )

        call_interruptibly(call, check)

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
        """The cause of an error that only says that there was an earlier one."""
        if self._fatal is not None:
            return self._fatal
        if error.code() not in _CONSEQUENCES:
            return error
        return self._broken_by() or self._fatal_error() or error

    def _broken_by(self) -> KafkaError | None:
        """What has broken the transaction or the producer: a call that needs an intact one reports it."""
        try:
            self.producer.begin_transaction()
        except KafkaException as told:
            found = kafka_error(told)
            return found if found.txn_requires_abort() or found.fatal() else None
        return None

    def _fatal_error(self) -> KafkaError | None:
        """The fatal error of this producer."""
        if self._fatal is None:
            self._fatal = raised_by(self.producer, _LOOK_S)
        return self._fatal

    def _outlasted(self) -> bool:
        return self._open_since is not None and time.clock_gettime(_CLOCK) - self._open_since > self._longest_s

    def _taken_over(self) -> bool:
        """Whether another instance has moved the group's offsets since our last commit."""
        try:
            # A group that had no offsets at the start has only what our first transaction was to bring.
            stands = self._group_at({*self._left_at, *self._in_doubt})
        except KafkaTransportError as error:
            CLIENT_LOG.info("whether another process took over is not known: %s", error)
            return False
        return any(at not in (self._left_at.get(p), self._in_doubt.get(p)) for p, at in stands.items())

    def given_up(self, reason: str) -> KafkaTransportError:
        """Abort what is open, for a reason that a restart solves, unless another instance has taken over."""
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
                f"the transactional producer {self._id!r} is {self.state.value} but should be {state.value}"
            )
