"""The commits of a group member, on its thread: requests in a queue, answered by what the broker has taken.

What may be committed is decided by the partitions that the member has at the moment of sending: a broker checks that the
sender is a member, not that a partition is its own.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.client_config import is_denied, is_transient, kafka_error
from loom.streaming.kafka.cluster_faults import denied
from loom.streaming.kafka.errors import CommitError, KafkaTransportError
from loom.streaming.kafka.group_offsets import TOPIC_GONE
from loom.streaming.record import TopicPartition

__all__ = ["CommitRequest", "MemberCommits"]

_log = get_logger(__name__)

#: seconds until a commit that met a rebalance is sent again
_COMMIT_AGAIN = 0.05
#: answers to a commit that came during a rebalance: what is still ours is sent again
_REBALANCING = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS, KafkaError._STATE}
)


class CommitRequest(LoomFrozenStruct, eq=False):
    """Offsets to be committed, each for a tenure. `answer` gets what was committed; nothing during a rebalance.

    It gets an exception for an error that is permanent.
    """

    offsets: Mapping[TopicPartition, int]
    tenures: Mapping[TopicPartition, int]
    answer: Future[dict[TopicPartition, int]]


class _Sent(LoomFrozenStruct, eq=False):
    """A commit that has not been answered."""

    offsets: dict[TopicPartition, int]
    requests: list[CommitRequest]


class MemberCommits:
    """The queue of one member. `put` may be called from any thread, everything else on the member's.

    `text` returns, by topic, what is committed beside an offset; `fault_of` makes an error of what ends a membership.
    """

    def __init__(
        self,
        text: Callable[[str], str],
        fault_of: Callable[[KafkaError], KafkaTransportError],
        clock: Callable[[], float],
    ) -> None:
        #: the member's client; set once it is made
        self.consumer: Consumer
        self._text = text
        self._fault_of = fault_of
        self._clock = clock
        self._requests: queue.SimpleQueue[CommitRequest | None] = queue.SimpleQueue()
        self._waiting: list[CommitRequest] = []
        self._sent: _Sent | None = None
        #: when a commit may be sent again after one that met a rebalance
        self._commit_at = 0.0

    def put(self, request: CommitRequest | None) -> None:
        """Request a commit; `None` only ends a wait."""
        self._requests.put(request)

    def take(self, wait_s: float) -> None:
        """Take what has been requested; wait so many seconds for the first."""
        try:
            found = self._requests.get(timeout=wait_s)
            while True:
                if found is not None:
                    self._waiting.append(found)
                found = self._requests.get_nowait()
        except queue.Empty:
            return

    def _ours(self, tenures: Mapping[TopicPartition, int]) -> _Sent | None:
        """Everything that was requested and may be sent: what is not of a current tenure is dropped."""
        requests, self._waiting = self._waiting, []
        offsets = {
            partition: offset
            for request in requests
            for partition, offset in request.offsets.items()
            if tenures.get(partition) == request.tenures.get(partition)
        }
        sent = _Sent(offsets, requests)
        if not offsets:
            _answer(sent, {})
            return None
        return sent

    def send(self, tenures: Mapping[TopicPartition, int]) -> None:
        """Commit without waiting: the client goes on being polled until the answer is there."""
        if self._sent is not None or not self._waiting or self._clock() < self._commit_at:
            return
        self._sent = self._ours(tenures)
        if self._sent is not None:
            try:
                self.consumer.commit(offsets=self._with_text(self._sent.offsets), asynchronous=True)
            except KafkaException as error:
                sent, self._sent = self._sent, None
                self._settle(sent, dict.fromkeys(sent.offsets, kafka_error(error)))

    def send_and_wait(self, tenures: Mapping[TopicPartition, int]) -> None:
        """Commit and wait for the answer; only inside a callback, where it cannot be held up by a join of our own."""
        sent = self._ours(tenures) if self._waiting and self._clock() >= self._commit_at else None
        if sent is None:
            return
        try:
            answers = self.consumer.commit(offsets=self._with_text(sent.offsets), asynchronous=False) or []
        except KafkaException as error:
            self._settle(sent, dict.fromkeys(sent.offsets, kafka_error(error)))
        else:
            self._settle(sent, {TopicPartition(p.topic, p.partition): p.error for p in answers})

    def answered(self, error: KafkaError | None, answers: list[ClientPartition]) -> None:
        """The client's callback."""
        offsets = {TopicPartition(found.topic, found.partition): found.offset for found in answers}
        sent = self._sent
        if sent is None or sent.offsets != offsets:
            return  # the answer to one that was abandoned
        self._sent = None
        self._settle(sent, {TopicPartition(p.topic, p.partition): error or p.error for p in answers})

    def _settle(self, sent: _Sent, errors: Mapping[TopicPartition, KafkaError | None]) -> None:
        committed: dict[TopicPartition, int] = {}
        again: dict[TopicPartition, str] = {}
        fault: KafkaTransportError | None = None
        for partition, offset in sent.offsets.items():
            error = errors.get(partition)
            if error is None:
                committed[partition] = offset
            elif error.code() == KafkaError.FENCED_INSTANCE_ID or error.fatal():
                fault = self._fault_of(error)
            elif is_denied(error):
                fault = denied(error, "offsets could not be committed")
            elif error.code() in _REBALANCING or is_transient(error) or error.code() in TOPIC_GONE:
                again[partition] = error.str()
            else:
                fault = CommitError(f"offsets could not be committed: {error.str()}")
        if again:
            self._commit_at = self._clock() + _COMMIT_AGAIN
            first = min(again)
            _log.info("commit_met_rebalance", partitions=len(again), first=str(first), reason=again[first])
        if fault is not None:
            for request in sent.requests:
                request.answer.set_exception(fault)
            return
        _answer(sent, committed)

    def abandon(self) -> None:
        """An answer cannot come while a callback runs; whoever waits for it asks again."""
        if self._sent is not None:
            sent, self._sent = self._sent, None
            _answer(sent, {})

    def answer_all(self) -> None:
        """Nothing is committed any more."""
        self.take(0.001)
        self.abandon()
        _answer(_Sent({}, self._waiting), {})
        self._waiting = []

    def _with_text(self, offsets: Mapping[TopicPartition, int]) -> list[ClientPartition]:
        return [ClientPartition(*p, offset, self._text(p.topic)) for p, offset in offsets.items()]


def _answer(sent: _Sent, committed: dict[TopicPartition, int]) -> None:
    for request in sent.requests:
        if not request.answer.done():
            request.answer.set_result({p: offset for p, offset in committed.items() if p in request.offsets})
