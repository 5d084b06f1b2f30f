"""The producers of a plan, opened when the sink part is built.

A record that a broker refuses for good is written to its output's dead letters here, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from loom.core.logger import get_logger
from loom.streaming.compiler.model import CompiledTopic
from loom.streaming.errors import ErrorEnvelope, ErrorKind
from loom.streaming.formats.format import WholeErrors
from loom.streaming.formats.registry import find_format
from loom.streaming.kafka.dead_letter import error_headers
from loom.streaming.kafka.errors import DeliveryFailedError
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.producer import TopicWriter
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.kafka.record_headers import key_bytes
from loom.streaming.kafka.transactions import Transactions
from loom.streaming.kafka.undelivered import Refusal
from loom.streaming.metrics import Counts
from loom.streaming.runtime.error_log import ErrorLog
from loom.streaming.runtime.exactly_once import ExactlyOnce
from loom.streaming.runtime.output_table import OutputTable
from loom.streaming.runtime.preflight import BrokerSnapshot
from loom.streaming.runtime.stages.stage_io import Positions

__all__ = ["NoProducers", "ProducerPool", "RecordWriter"]

_log = get_logger(__name__)

Results = Sequence[Any]


class RecordWriter(Protocol):
    """Where results that are records go."""

    def write(self, results: Results) -> None:
        """Hand records over; they need not be durable yet."""

    def serve(self) -> None:
        """Look for deliveries that failed."""

    def flush(self, positions: Positions) -> None:
        """Return when everything written is durable; in a transaction, together with these offsets."""

    def close(self) -> None:
        """Let the clients go; never raises."""


class NoProducers:
    """For a plan whose outputs are all sinks of the caller's: no producer is opened."""

    def write(self, results: Results) -> None:
        """Nothing is ever routed to a topic here."""
        raise AssertionError("a plan without topics wrote a record")

    def serve(self) -> None:
        """Nothing is in flight."""

    def flush(self, positions: Positions) -> None:
        """Nothing is in flight."""

    def close(self) -> None:
        """Nothing is open."""


class ProducerPool:
    """One `TopicWriter` per producer of the plan that is written to; nearly always one."""

    def __init__(
        self,
        flow: str,
        outlets: OutputTable,
        view: RecordAccessor,
        counts: Counts,
        seen: BrokerSnapshot,
        waiting: Callable[[str], None],
        exactly_once: ExactlyOnce | None = None,
        clusters: Clusters | None = None,
        error_log: ErrorLog | None = None,
    ) -> None:
        transactions: Transactions | None = None
        if exactly_once is not None:
            transactions = exactly_once.open()[0]
        self._exactly_once = exactly_once
        self._error_log = error_log or ErrorLog()
        self._flow = flow
        self._view = view
        self._counts = counts
        self._dlq: dict[str, tuple[CompiledTopic, TopicWriter]] = {}
        #: by the producer's number in the plan
        self._writers: dict[int, TopicWriter] = {}
        topics = outlets.topics()
        tracked = {outlet.output.topic for outlet in topics.values() if outlet.output.dlq is not None}
        self._dead_letters = _dead_letters(outlets)

        def writer_for(output: CompiledTopic) -> TopicWriter:
            producer, key = output.producer, output.producer.index
            if key not in self._writers:
                known = seen.written[key]
                self._writers[key] = TopicWriter(
                    producer.properties,
                    max_message_bytes=known.max_message_bytes,
                    tracked_topics=tracked,
                    refused=self._refused,
                    waiting=waiting,
                    transactions=transactions,
                    partition_counts=known.partition_counts,
                    timestamp_limits=known.timestamp_limits,
                    compacted=known.compacted,
                    dead_letters=self._dead_letters,
                    place=view.place,
                    clusters=clusters,
                )
            return self._writers[key]

        by_slot = {slot: (writer_for(outlet.output), outlet.output.topic) for slot, outlet in topics.items()}
        for outlet in topics.values():
            if outlet.output.dlq is not None:
                self._dlq[outlet.output.topic] = (outlet.output, writer_for(outlet.output.dlq))
        self._by_slot = [by_slot.get(slot, (None, ""))[0] for slot in range(len(outlets.table))]
        self._lanes = [
            by_slot[slot][0].target(by_slot[slot][1]) if slot in by_slot else _NO_TARGET
            for slot in range(len(outlets.table))
        ]
        self._all = list(self._writers.values())
        self._only = self._all[0] if len(self._all) == 1 else None

    def write(self, results: Results) -> None:
        """Hand records to their producers, in order."""
        if self._only is not None:
            self._only.write_all(results, self._lanes)
            return
        for result in results:
            writer = self._by_slot[result[0]]
            if writer is not None:
                writer.write_all((result,), self._lanes)

    def serve(self) -> None:
        """Look for deliveries that failed."""
        for writer in self._all:
            writer.serve()

    def flush(self, positions: Positions) -> None:
        """Return when everything written is durable, dead letters of refused records included."""
        if self._exactly_once is not None:
            # One cluster and one producer: the compiler has seen to it.
            self._all[0].commit(positions, self._exactly_once.group_metadata)
            return
        pending = True
        while pending:
            # Flushing may bring refusals, which write dead letters, which want flushing.
            before = sum(self._counts.refused.values())
            for writer in self._all:
                resent = writer.flush()
                if resent:
                    _log.warning("records_resent", count=resent, note="sent one at a time, so they may be out of order")
            pending = sum(self._counts.refused.values()) != before

    def close(self) -> None:
        """Close the producers."""
        for writer in self._all:
            writer.close()
        if self._exactly_once is not None:
            self._exactly_once.close()

    def _refused(self, refusal: Refusal) -> None:
        record = refusal.record
        if record.topic not in self._dlq:
            place = self._view.place(record.origin)
            if record.topic in self._dead_letters:
                raise DeliveryFailedError(
                    f"{record.topic} refuses the dead letter of {place}: {refusal.reason}. Raise the topic's "
                    "max.message.bytes, or set message.max.bytes under the producer's extra so that the broker decides"
                )
            raise DeliveryFailedError(
                f"{record.topic} refuses the record made of {place}: {refusal.reason}. Give that IntoTopic a dlq=… for "
                "such records"
            )
        output, writer = self._dlq[record.topic]
        # The stage has counted it as an output, which it is not.
        self._counts.refused[record.topic] += 1
        self._counts.outputs[record.topic] -= 1
        source = self._view.record_left(record.origin)
        envelope: ErrorEnvelope[Any] = ErrorEnvelope(
            ErrorKind.TASK,
            refusal.reason,
            step_id=output.step_id,
            path=output.path,
            error_type="refused-by-broker",
            source=source,
        )
        why, place = DeliveryFailedError(refusal.reason), self._view.place(record.origin)
        self._error_log.notice(ErrorKind.TASK, output.step_id, why, None, place)
        headers = error_headers(envelope, self._flow).pairs
        dlq = output.dlq.topic if output.dlq is not None else ""
        # Without a timestamp: the broker may have refused the record for that which it has.
        writer.write(dlq, source.value, key_bytes(source.key), None, headers, record.origin)


def _dead_letters(outlets: OutputTable) -> dict[str, WholeErrors | None]:
    """The topics of dead letters, and how whole `ErrorEnvelope`s are written to them."""
    written = {
        outlet.output.topic: find_format(outlet.output.settings.format).whole_errors
        for outlet in outlets.topics().values()
        if outlet.is_errors
    }
    # A refused record's dead letter is the record itself, whatever the format of its topic.
    return written | {o.output.dlq.topic: None for o in outlets.topics().values() if o.output.dlq is not None}


_NO_TARGET: Any = None
