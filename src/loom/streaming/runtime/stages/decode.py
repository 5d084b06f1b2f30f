"""The head of a stage: bytes become payloads. Hot path.

Whatever a value holds, the outcome is a payload, a tombstone or a `WIRE` error; nothing that a broker can return raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from loom.streaming.compiler.model import CompiledSource, Reads, StepId
from loom.streaming.formats.format import FramedFormat
from loom.streaming.formats.registry import reading_of
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.message import TOMBSTONE, Message, MessageMeta
from loom.streaming.runtime.stages.codegen import CodeWriter, Emitter, Lap, LoopWriter, Watch, WorkOnRecord, build_loop
from loom.streaming.runtime.stages.declared import exact_classes
from loom.streaming.runtime.stages.failures import NOT_DECODED, Fail
from loom.streaming.runtime.stages.node_input import NodeInput
from loom.streaming.runtime.stages.node_timer import NodeTimer
from loom.streaming.runtime.stages.read_back import dead_letter_decoder
from loom.streaming.runtime.stages.record_code import RecordWriter
from loom.streaming.runtime.stages.told_apart import DecodeRecord, labelled_decoder

__all__ = ["BareHead", "Head", "build_bare", "build_head", "build_record", "can_watch", "of_one"]

#: takes the records of one batch
Head = Callable[[Sequence[Any]], None]
#: takes those before the first that has headers, and returns that one; `None` if none has any
BareHead = Callable[[Sequence[Any]], Any]


def can_watch(source: CompiledSource) -> bool:
    """Whether the loop of a source is written for its flow, so that it can watch out for records."""
    return (
        source.reads not in (Reads.LABELLED, Reads.DEAD_LETTERS)
        and reading_of(source.settings.format).framed is None
        and not source.settings.replay_steps
    )


def build_head(
    source: CompiledSource,
    view: RecordAccessor,
    entry: NodeInput,
    fail: Fail,
    inside: Emitter,
    *,
    lap: Lap | None = None,
    begin: StepId | None = None,
    watch: Watch | None = None,
) -> Head:
    """The loop over one batch of records. `inside` writes the flow into a loop that can hold it, one that tells of
    nodes with `lap`, first of the source, `begin`; records that `watch` wants are handed to it, where a source can (`can_watch`).
    """
    if source.reads is Reads.LABELLED:
        return _decoding(view, entry, fail, labelled_decoder(source, view))
    if source.reads is Reads.DEAD_LETTERS:
        return _decoding(view, entry, fail, dead_letter_decoder(source, view), tombstones=False)
    reading = reading_of(source.settings.format)
    if reading.framed is not None:
        return _decoding(view, entry, fail, _unframing(reading.framed, source, view))
    code = LoopWriter(lap=lap, watch=watch, messages=view.may_be_messages)
    loop: Head = _written(code, source, view, entry, fail, inside, begin)
    return loop


def build_bare(
    source: CompiledSource,
    view: RecordAccessor,
    entry: NodeInput,
    fail: Fail,
    inside: Emitter,
    watch: Watch | None = None,
) -> BareHead | None:
    """The loop of `build_head` for records without headers; `None` where it costs less to ask a whole batch for them first."""
    headers = view.expressions.get("headers")
    if headers is None or view.may_be_messages:
        return None
    loop: BareHead = _written(LoopWriter(watch=watch, headers=headers), source, view, entry, fail, inside, None)
    return loop


def build_record(
    source: CompiledSource,
    view: RecordAccessor,
    entry: NodeInput,
    fail: Fail,
    inside: Emitter,
    *,
    timer: NodeTimer,
    begin: StepId,
) -> WorkOnRecord:
    """The work on one record that is followed, for a source that can watch out for those; the rest as in `build_head`."""
    code = RecordWriter(timer, messages=view.may_be_messages)
    work: WorkOnRecord = _written(code, source, view, entry, fail, inside, begin)
    if code.meets:
        code = RecordWriter(timer, messages=view.may_be_messages, at_once=True)
        work = _written(code, source, view, entry, fail, inside, begin)
    return work


def of_one(head: Head) -> WorkOnRecord:
    """The work on one record by a loop over many, which sets no headers with its trace."""

    def work(origin: Any, _traced: Any) -> None:
        head((origin,))

    return work


def _written(
    code: CodeWriter,
    source: CompiledSource,
    view: RecordAccessor,
    entry: NodeInput,
    fail: Fail,
    inside: Emitter,
    begin: StepId | None,
) -> Any:
    reading = reading_of(source.settings.format)
    return build_loop(
        inside,
        view,
        reading.format.decoder(source.payload, source.dec_hook),
        exact_classes(source.payload) if reading.format.decodes_exactly else frozenset(),
        _without_value(entry),
        _second_look(reading.beside, source, view, entry, fail),
        code,
        begin,
    )


def _decoding(
    view: RecordAccessor, entry: NodeInput, fail: Fail, decode: DecodeRecord, *, tombstones: bool = True
) -> Head:
    """The loop for records that need more than their value to be decoded."""
    value_of, record, without_value = view.value, entry.record, _without_value(entry)

    def run(origins: Sequence[Any]) -> None:
        for origin in origins:
            value = value_of(origin)
            if value is None and (tombstones or isinstance(origin, Message)):
                without_value(origin)
                continue
            try:
                payload, meta = decode(origin, value or b"")
            except BaseException as error:
                fail(error, NOT_DECODED, origin, None)
                continue
            record(payload, origin, meta)

    return run


def _unframing(framed: FramedFormat, source: CompiledSource, view: RecordAccessor) -> DecodeRecord:
    """Every value holds metadata too."""
    unframe = framed.unframer(source.payload, source.dec_hook)

    def decode(origin: Any, value: bytes) -> tuple[Any, MessageMeta | None]:
        found = unframe(value)
        return found.payload, found.over(view.meta(origin))

    return decode


def _without_value(entry: NodeInput) -> Callable[[Any], None]:
    """A record without bytes: a tombstone, or a message that never was any bytes (from a source of the author's own)."""

    def take(origin: Any) -> None:
        if not isinstance(origin, Message):
            entry.tombstone(TOMBSTONE, origin, None)
        elif origin.payload is TOMBSTONE:
            entry.tombstone(TOMBSTONE, origin, origin.meta)
        else:
            entry.record(origin.payload, origin, origin.meta)

    return take


def _second_look(
    beside: FramedFormat | None, source: CompiledSource, view: RecordAccessor, entry: NodeInput, fail: Fail
) -> Callable[[BaseException, bytes, Any], None]:
    """Handle a value that did not decode: it may be of the format that is recognised beside the source's."""
    if beside is None:
        return lambda error, value, origin: fail(error, NOT_DECODED, origin, None)
    unframe, recognises = beside.unframer(source.payload, source.dec_hook), beside.recognises

    def look(error: BaseException, value: bytes, origin: Any) -> None:
        if not recognises(value):
            fail(error, NOT_DECODED, origin, None)
            return
        try:
            found = unframe(value)
            meta = found.over(view.meta(origin))
        except BaseException as inner:
            fail(inner, NOT_DECODED, origin, None)
            return
        entry.record(found.payload, origin, meta)

    return look
