"""What comes out of a flow under test: every output is encoded as for its topic, and its message kept.

The stage is the one of production; only the last step before the sink is observed (`Transport.outlets`), where the message
that a record is made of rides along with the record's bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from msgspec.structs import replace

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import CompiledTopic, NodePath
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorEnvelope, ErrorKind
from loom.streaming.headers import Headers
from loom.streaming.kafka.dead_letter import DeadLetterWriter
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.message import Message, MessageMeta
from loom.streaming.record import KafkaRecord
from loom.streaming.runtime.output_table import CustomOutput, OutputTable
from loom.streaming.runtime.stages.failures import ErrorTarget, Fail
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput, Receive, node_input
from loom.streaming.runtime.stages.outputs import build_topic
from loom.streaming.runtime.stages.stage_io import Positions, Result
from loom.streaming.testing.sinks import KeepingSink

__all__ = ["Captured"]


class _Output(LoomFrozenStruct):
    """What a record is made of, and the output it leaves through."""

    path: NodePath
    message: Message[Any]


_Content: TypeAlias = _Output | ErrorEnvelope[Any]


class _Carried(bytes):
    """A record's value together with what it was made of."""

    content: _Content
    is_null: bool

    @classmethod
    def of(cls, value: bytes | None, content: _Content) -> _Carried:
        made = cls(value or b"")
        made.content = content
        made.is_null = value is None
        return made


class Captured:
    """The results of the runs of one flow, until they are forgotten."""

    def __init__(self) -> None:
        self.messages: defaultdict[NodePath, list[Message[Any]]] = defaultdict(list)
        self.errors: defaultdict[ErrorKind, list[ErrorEnvelope[Any]]] = defaultdict(list)
        #: by topic, what would have been written; dead letters too
        self.records: defaultdict[str, list[KafkaRecord]] = defaultdict(list)

    def error_sink(self) -> KeepingSink:
        """A sink for the kinds of errors that have no route of the flow's."""
        return KeepingSink(self._keep_errors)

    def watch(self, plan: CompiledPlan, outlets: OutputTable, *, real_sinks: bool) -> OutputTable:
        """The ways out of a plan, looked on at."""
        table = list(outlets.table)
        for path in plan.terminal_storage_sinks:
            slot = outlets.slots.outputs[path]
            outlet = table[slot]
            if isinstance(outlet, CustomOutput):
                keep = self.messages[path].extend
                table[slot] = replace(outlet, sink=KeepingSink(keep, outlet.sink if real_sinks else None))
        errors = {
            kind: target if target.write is None else ErrorTarget(target.slot, _carrying(target.write))
            for kind, target in outlets.slots.errors.items()
        }
        return OutputTable(tuple(table), replace(outlets.slots, errors=errors, into_topic=_build_topic))

    def writers(self, outlets: OutputTable) -> _Notebook:
        """Takes the place of the producers."""
        return _Notebook(outlets.slots.names, self)

    def keep(self, topic: str, result: Result) -> None:
        """A record that would be written to a topic."""
        _, value, key, timestamp_ms, headers, _ = result
        content = value.content
        if isinstance(content, _Output):
            self.messages[content.path].append(content.message)
        else:
            self._keep_errors([content])
        written = None if value.is_null else bytes(value)
        pairs = Headers.of(headers) if headers else Headers()
        self.records[topic].append(KafkaRecord(topic, key, written, pairs, timestamp_ms=timestamp_ms))

    def _keep_errors(self, envelopes: Iterable[ErrorEnvelope[Any]]) -> None:
        for envelope in envelopes:
            self.errors[envelope.kind].append(envelope)


class _Notebook:
    """In the place of the producers: what they are handed is kept."""

    def __init__(self, names: tuple[str, ...], captured: Captured) -> None:
        self._names = names
        self._captured = captured

    def write(self, results: Iterable[Any]) -> None:
        for result in results:
            self._captured.keep(self._names[result[0]], result)

    def serve(self) -> None:
        """Nothing is in flight."""

    def flush(self, positions: Positions) -> None:
        """Nothing is in flight."""

    def close(self) -> None:
        """Nothing is open."""


def _build_topic(
    output: CompiledTopic,
    slot: int,
    view: RecordAccessor,
    emit: Callable[[Result], None],
    fail: Fail,
    above: Ancestors,
) -> tuple[NodeInput, None]:
    """The end of production, with the message that arrives at it carried along."""
    path, meta_of = output.path, view.meta
    arrived: tuple[Any, Any, MessageMeta | None] = (None, None, None)

    def emit_with(result: Result) -> None:
        payload, origin, meta = arrived
        message = Message(payload, meta_of(origin) if meta is None else meta)
        emit((result[0], _Carried.of(result[1], _Output(path, message)), *result[2:]))

    def seen(take: Receive) -> Receive:
        def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
            nonlocal arrived
            arrived = (payload, origin, meta)
            take(payload, origin, meta)

        return run

    # Without the code for the loop, so that every record comes by here.
    entry, _ = build_topic(output, slot, view, emit_with, fail, above)
    return node_input(seen(entry.record), seen(entry.tombstone), above), None


def _carrying(write: DeadLetterWriter) -> DeadLetterWriter:
    def write_with(envelope: ErrorEnvelope[Any], flow: str) -> KafkaRecord:
        record = write(envelope, flow)
        return replace(record, value=_Carried.of(record.value, envelope))

    return write_with
