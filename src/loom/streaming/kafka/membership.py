"""The member of a consumer group that this process is: a client that is subscribed, reads nothing, and has a thread of its own.

Only that thread ever calls the client: a call of another one would wait while a callback runs, and a callback that waits for
it would wait for ever. So commits are requests in a queue. Inside `on_revoke` the callback itself serves them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.client_config import CLIENT_LOG, is_denied, kafka_error, make_client
from loom.streaming.kafka.cluster_faults import ClusterFaults, denied
from loom.streaming.kafka.errors import KafkaTransportError, SecondInstanceError
from loom.streaming.kafka.group_settings import instance_name, member_properties
from loom.streaming.kafka.member_commits import CommitRequest, MemberCommits
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.record import TopicPartition

__all__ = ["GroupMember", "Partitions", "Tenure", "member_config"]

_log = get_logger(__name__)

#: seconds between two polls of the client, during which a request is served at once
_TURN = 0.02
#: a revocation waits for the end of the epoch for this share of the session
_BOUND = 1 / 3
#: Seconds for which partitions that are to be given up are read on. What one member gives up is nobody's until all have joined
#: again, which librdkafka does at most once a second (measured with 2.16); and the others learn of it from their heartbeats,
#: which begin anew at a rebalance: this is shortly before the third one.
_READ_ON = 1.3
#: seconds that leaving the group, and closing the client, may take
_LEAVE, _CLOSE = 3.0, 5.0
#: seconds of a stop that are left to what is closed after the member
_AFTER = 1.0

#: the client's text of the error that a static member gets when another one has its name
_FENCED = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()


class Tenure(LoomFrozenStruct):
    """One partition for as long as this member has it; another tenure of the same partition has another number."""

    partition: TopicPartition
    number: int


class Partitions(Protocol):
    """What is done with the partitions of a member. Called on the member's thread; must not wait."""

    def assigned(self, tenures: Collection[Tenure]) -> None:
        """The member has these now."""

    def revoking(self, partitions: Collection[TopicPartition], bound_s: float) -> None:
        """Bring what was read of these to an end within so many seconds, and commit it: another member is to have them."""

    def has_given_up(self, partitions: Collection[TopicPartition]) -> bool:
        """Whether nothing of these is in progress any more."""

    def withdraw(self, partitions: Collection[TopicPartition]) -> None:
        """These are another member's, or will be at once: nothing of what is in progress may be committed."""

    def stuck_for(self) -> float:
        """For how many seconds a worker has had records and has not come back."""

    def failed(self, fault: BaseException) -> None:
        """The member cannot go on."""


def member_config(settings: ConsumerSettings) -> dict[str, Any]:
    """The properties of the client that is the member."""
    own = member_properties(settings.group_instance_id, settings.session_timeout_ms, settings.max_poll_interval_ms)
    return settings.to_confluent_config() | own


class GroupMember:
    """Joins the group when it is started, and leaves it when it is closed.

    `text` returns, by topic, what is committed beside an offset.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        topics: Iterable[str],
        partitions: Partitions,
        text: Callable[[str], str],
        clusters: Clusters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topics = list(topics)
        self._partitions = partitions
        self._clock = clock
        self._bound_s = settings.session_timeout_ms / 1000 * _BOUND
        self._stuck_s = settings.max_poll_interval_ms / 1000
        self._name = instance_name(settings.group_instance_id)
        self._commits = MemberCommits(text, self._fault_of, clock)
        own = {
            "on_commit": self._commits.answered,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # New partitions are seen as soon as the topics are checked.
            "topic.metadata.refresh.interval.ms": settings.topic_check_interval_ms,
        }
        config = member_config(settings)
        self._faults = clusters.of(config) if clusters is not None else ClusterFaults(config)
        self._consumer = make_client(Consumer, config | own, self._faults, on_error=self._on_error)
        self._commits.consumer = self._consumer
        self._tenures: dict[TopicPartition, int] = {}
        self._last_tenure = 0
        self._fatal: KafkaError | None = None
        #: whether it has left the group because a worker is stuck
        self._away = False
        self._closing = False
        self._leaves_for_good = False
        #: The client's object that ties offsets in a transaction to the group, as of the last rebalance. Never fetched
        #: at a commit: a broker accepts old offsets that come with fresh metadata. `None`: no member, so nothing may be sent.
        self.metadata: Any = None
        self._thread = threading.Thread(target=self._run, name="loom-group-member", daemon=True)

    def start(self) -> None:
        """Join the group."""
        self._thread.start()

    def commit(self, offsets: Mapping[TopicPartition, int], tenures: Mapping[TopicPartition, int]) -> CommitRequest:
        """Request a commit. From any thread; does not wait."""
        request = CommitRequest(dict(offsets), dict(tenures), Future())
        if self._thread.is_alive():
            self._commits.put(request)
        else:
            request.answer.set_result({})
        return request

    def close(self, *, for_good: bool = False, within_s: float | None = None) -> None:
        """Leave the group and close the client. Never raises.

        A static member stays in the group until its session times out, so that it has its partitions again when it comes
        back in time; `for_good`: it leaves nevertheless. `within_s`: how many seconds the stop has left for everything.
        """
        self._leaves_for_good = for_good
        self._closing = True
        self._commits.put(None)
        if self._thread.ident is None:
            self._close()
            return
        patience_s = self._rejoin_s() + _CLOSE
        if within_s is not None:
            patience_s = min(patience_s, max(0.0, within_s - _AFTER))
        self._thread.join(patience_s)
        if self._thread.is_alive():
            _log.warning("consumer_abandoned", reason="the broker does not answer while the group is left")

    def _run(self) -> None:
        try:
            self._subscribe()
            while not self._closing:
                self._turn()
        except BaseException as fault:  # noqa: BLE001 - surfaced by the workers
            self._withdraw(list(self._tenures))
            self._partitions.failed(fault)
        finally:
            self._close()
            self._commits.answer_all()

    def _turn(self) -> None:
        self._poll(0)
        self._commits.take(_TURN)
        self._commits.send(self._tenures)
        self._check_workers()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _poll(self, wait_s: float) -> None:
        message = self._consumer.poll(wait_s)
        if self._fatal is not None:
            raise self._fault_of(self._fatal)
        if message is None or (error := message.error()) is None:
            return
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise self._fault_of(error)
        if is_denied(error):
            raise denied(error, f"the group {self._settings.group_id!r} cannot be joined")
        # Nothing is read here, so that everything else passes, or is the matter of those who read.
        CLIENT_LOG.info("group member: %s", error.str())

    def _fault_of(self, error: KafkaError) -> KafkaTransportError:
        # What a poll returns has the text of the cause, and a code that only says that it is fatal.
        if error.code() == KafkaError.FENCED_INSTANCE_ID or _FENCED in error.str():
            return SecondInstanceError(
                f"another process has joined the group {self._settings.group_id!r} as {self._name!r}, and has the partitions "
                "of this one. Each process needs a group_instance_id of its own. This one ends; what it has not committed is "
                "read again"
            )
        return SecondInstanceError(
            f"the membership in the group {self._settings.group_id!r} has ended for good: {error.str()}. What is not "
            "committed is read again"
        )

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() and self._fatal is None:
            self._fatal = error

    # The callbacks of a rebalance, on this thread, inside `poll`, `unsubscribe` and `close`.

    def _on_assign(self, consumer: Consumer, assigned: list[ClientPartition]) -> None:
        # With an offset, so that the client looks nothing up; paused at once, so that it fetches nothing.
        partitions = [ClientPartition(found.topic, found.partition, 0) for found in assigned]
        if partitions:
            consumer.incremental_assign(partitions)
            consumer.pause(partitions)
        self.metadata = consumer.consumer_group_metadata()
        tenures = []
        for found in assigned:
            self._last_tenure += 1
            partition = TopicPartition(found.topic, found.partition)
            self._tenures[partition] = self._last_tenure
            tenures.append(Tenure(partition, self._last_tenure))
        _log.info("partitions_assigned", added=len(tenures), now=len(self._tenures), first=_first(self._tenures))
        self._partitions.assigned(tenures)
        if tenures:
            failpoint(Failpoint.ASSIGNED)

    def _on_revoke(self, consumer: Consumer, revoked: list[ClientPartition]) -> None:
        partitions = [TopicPartition(found.topic, found.partition) for found in revoked]
        if not partitions:
            return
        # A rebalance has raised the group's generation, and until this returns the partitions are still ours: the epochs that
        # end by then belong to it.
        self.metadata = consumer.consumer_group_metadata() if not self._away else None
        self._commits.abandon()
        self._read_on()
        began = self._clock()
        self._partitions.revoking(partitions, self._bound_s)
        failpoint(Failpoint.REVOKING)
        while not self._partitions.has_given_up(partitions):
            left = began + self._bound_s - self._clock()
            if left <= 0:
                failpoint(Failpoint.REVOKING_AT_BOUND)
                _log.warning(
                    "revocation_overdue",
                    partitions=len(partitions),
                    first=_first(partitions),
                    seconds=round(self._bound_s, 1),
                    note="what was read of them and is not committed is read again by another member",
                )
                break
            self._commits.take(min(left, _TURN))
            self._commits.send_and_wait(self._tenures)
        self._withdraw(partitions)
        consumer.incremental_unassign(revoked)
        _log.info(
            "partitions_revoked",
            revoked=len(partitions),
            now=len(self._tenures),
            first=_first(partitions),
            ms=round((self._clock() - began) * 1000),
        )

    def _read_on(self) -> None:
        """Keep what is to be given up until the others are able to join again, so that it stands still for as short as can be."""
        until = self._clock() + _READ_ON
        while not self._closing and not self._away and (left := until - self._clock()) > 0:
            self._commits.take(left)
            self._commits.send_and_wait(self._tenures)

    def _on_lost(self, consumer: Consumer, lost: list[ClientPartition]) -> None:
        self.metadata = None
        partitions = [TopicPartition(found.topic, found.partition) for found in lost]
        self._commits.abandon()
        self._withdraw(partitions)
        if lost:
            consumer.incremental_unassign(lost)
        _log.warning(
            "partitions_lost",
            lost=len(partitions),
            first=_first(partitions),
            why="the group's coordinator has taken this process for dead: it did not answer within session_timeout_ms",
        )

    def _withdraw(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._tenures.pop(partition, None)
        self._partitions.withdraw(partitions)

    def _check_workers(self) -> None:
        stuck_s = self._partitions.stuck_for()
        if stuck_s > self._stuck_s and not self._away:
            self._away = True
            _log.error(
                "member_left",
                why=f"a worker has been at work on one batch for {stuck_s:.0f} s, and max_poll_interval_ms allows "
                f"{self._stuck_s:.0f} s",
                then="it joins again when the worker comes back",
            )
            self.metadata = None
            self._withdraw(list(self._tenures))
            self._consumer.unsubscribe()
        elif self._away and stuck_s <= self._stuck_s:
            self._away = False
            _log.info("member_joins_again")
            self._subscribe()

    def _rejoin_s(self) -> float:
        """How many seconds the group may take to be balanced: as long as a member that is dead is waited for."""
        return self._settings.session_timeout_ms / 1000 if self._faults.explain() is None else _LEAVE

    def _await_rejoined(self) -> None:
        """Wait until the broker has answered what was sent to it before, a request to join above all.

        It reads nothing else on that connection until every member has joined, or is dead, and the client gives a request to
        leave up after 5 s (librdkafka 2.16). What has not left is a member until its session is over, and the others wait
        for that.
        """
        if self._fatal is not None or self._away:
            return
        try:
            self._consumer.committed([ClientPartition(self._topics[0], 0)], timeout=self._rejoin_s())
        except KafkaException as error:
            _log.info("leave_unconfirmed", reason=kafka_error(error).str())

    def _close(self) -> None:
        try:
            if self._thread.ident is not None and (self._name is None or self._leaves_for_good):
                self._await_rejoined()
            if self._leaves_for_good and not self._away and self._name is not None:
                # A static member sends its leave only if it is not closed at once.
                self._consumer.unsubscribe()
                until = self._clock() + _LEAVE
                while self._tenures and self._clock() < until:
                    self._consumer.poll(_TURN)
                self._consumer.poll(_TURN)
            self._consumer.close()
        except Exception as error:  # noqa: BLE001 - an error of close() must not hide what the run ended with
            _log.warning("close_failed", what="group member", reason=str(error))


def _first(partitions: Iterable[TopicPartition]) -> str | None:
    return str(first) if (first := min(partitions, default=None)) is not None else None
