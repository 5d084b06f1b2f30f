"""The ends of a stage: a payload becomes the bytes, key, time and headers of an outgoing record. Hot path.

An output has one emitter, for the loop and for its function; only what has touched metadata or headers is worked out beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from loom.core.errors import ENDS_RUN
from loom.streaming.compiler.model import CompiledTopic
from loom.streaming.formats.finite import NULL, FiniteNumbers
from loom.streaming.formats.format import Encode, Encoding, Format, FramedFormat
from loom.streaming.formats.registry import find_format
from loom.streaming.headers import Headers
from loom.streaming.kafka.cloud_events import event_headers
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.kafka.record_headers import label_function, rewritten, wanted_from_meta
from loom.streaming.kafka.settings import HeaderPolicy
from loom.streaming.kafka.writable import check_ids, writable_headers, writable_key, writable_time
from loom.streaming.message import TOMBSTONE, Message, MessageMeta
from loom.streaming.runtime.stages.codegen import CodeWriter, Emitter, build_function
from loom.streaming.runtime.stages.failures import Fail
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput, Receive, node_input
from loom.streaming.runtime.stages.stage_io import Result

__all__ = ["Noted", "build_audit", "build_hosted", "build_topic"]

Emit = Callable[[Result], None]


def build_topic(
    output: CompiledTopic, slot: int, view: RecordAccessor, emit: Emit, fail: Fail, above: Ancestors
) -> tuple[NodeInput, Emitter | None]:
    """Into a topic, and how that is written into the loop; a format that holds metadata is never written there.

    A value that does not encode is an error of this place.
    """
    written = find_format(output.settings.format)
    if isinstance(written, FramedFormat):
        return _build_framed(written, output, slot, view, emit, fail, above), None
    return _build_bare(written, output, slot, view, emit, fail, above)


def _build_bare(
    written: Format,
    output: CompiledTopic,
    slot: int,
    view: RecordAccessor,
    emit: Emit,
    fail: Fail,
    above: Ancestors,
) -> tuple[NodeInput, Emitter]:
    headers_for = _header_function(output, written, view, above)
    encode = written.encoder(_encoding(output))
    numbers = written.finite_numbers(output.payloads.types if output.payloads.known else ())

    def touched(payload: Any, origin: Any, meta: MessageMeta) -> tuple[bytes | None, int | None, Any]:
        return _touched(meta, origin, view.timestamp, headers_for(payload, origin, meta))

    def again(error: BaseException, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        # A field may hold what it does not declare, for which isfinite does not work.
        if isinstance(error, ENDS_RUN):
            fail(error, payload, origin, meta)
        run(payload, origin, meta)

    def write(code: CodeWriter) -> None:
        encoded, asks_fields = _write_value(code, encode, numbers)
        key, time, headers = (
            code.part(view, "key"),
            code.part(view, "timestamp"),
            _headers(code, output, view, headers_for),
        )
        # Untouched metadata: what the record carries passes through unchanged.
        if code.meta == "None":
            made = [] if headers == "None" else [f"headers = {headers}"]
            headers = "headers" if made else headers
        else:
            made = [
                f"if {code.meta} is None:",
                f"    key, time, headers = {key}, {time}, {headers}",
                "else:",
                f"    key, time, headers = {code.name('touched', touched)}({code.payload}, origin, {code.meta})",
            ]
            key, time, headers = "key", "time", "headers"
        code.attempt(again if asks_fields else fail, *encoded, *made)
        code.line(f"{code.name('emit', emit)}(({slot}, value, {key}, {time}, {headers}, origin))")
        code.end()

    run = build_function(write, None)
    return node_input(run, _build_tombstone(slot, view, emit, fail, headers_for), above), write


def _write_value(code: CodeWriter, encode: Encode, numbers: FiniteNumbers | None) -> tuple[list[str], bool]:
    """Lines that encode the payload and refuse numbers that the format does not have; also whether they ask its fields."""
    payload = code.payload
    encoded = [f"value = {code.name('encode', encode)}({payload})"]
    if numbers is None or (code.classes and code.classes <= numbers.harmless):
        return encoded, False
    check = f"{code.name('check', numbers.check)}({payload}, value)"
    if len(code.classes) == 1:
        (cls,) = code.classes
        test = numbers.test(cls, payload, code.name("isfinite", isfinite))
        if test is not None:
            return [*encoded, f"if not ({test}):", f"    {check}"], True
    # Such a number is written as null, and without one there is none.
    return [*encoded, f"if {code.name('null', NULL)} in value:", f"    {check}"], False


def _headers(
    code: CodeWriter,
    output: CompiledTopic,
    view: RecordAccessor,
    headers_for: Callable[[Any, Any, MessageMeta | None], Any],
) -> str:
    """An expression for the headers of a record with untouched metadata."""
    if output.settings.headers is HeaderPolicy.NONE and not output.settings.cloudevents:
        return "None"
    headers = f"{code.name('headers_for', headers_for)}({code.payload}, origin, None)"
    if not _says_nothing_by_itself(output):
        return headers
    if code.bare:
        return "None"
    if view.set_headers is None and view.known is None:
        return _or_traced(code, f"{headers} if {code.part(view, 'headers')} else None")
    # Most batches have no headers at all; then no record is checked.
    any_headers = code.of_batch("said", view.any_headers)
    asked = f"{code.name('has_headers', view.has_headers)}(origin)"
    return _or_traced(code, f"{headers} if {f'{any_headers} and {asked}' if any_headers else asked} else None")


def _or_traced(code: CodeWriter, headers: str) -> str:
    """The headers of a record; those with its trace if it is followed and came without any."""
    return headers if code.traced is None else f"{code.traced} or ({headers})"


def build_hosted(
    slot: int, view: RecordAccessor, emit: Emit, unreadable: Fail, above: Ancestors
) -> tuple[NodeInput, Emitter]:
    """Into a sink that takes messages, and how that is written into the loop."""

    def write(code: CodeWriter) -> None:
        known = f"{code.name('meta_of', view.meta)}(origin)"
        if code.meta != "None":
            known = f"{known} if {code.meta} is None else {code.meta}"
        code.attempt(unreadable, f"known = {known}")
        message = f"{code.name('Message', Message)}({code.payload}, known)"
        code.line(f"{code.name('emit', emit)}(({slot}, {message}, None, None, None, origin))")
        code.end()

    run = build_function(write, None)
    return node_input(run, run, above), write


class Noted:
    """Whether an output has just made an error of what it was handed."""

    __slots__ = ("failed",)

    def __init__(self) -> None:
        self.failed = False

    def on(self, fail: Fail) -> Fail:
        """An error boundary that is noted."""

        def noting(error: BaseException, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
            self.failed = True
            fail(error, payload, origin, meta)

        return noting


def build_audit(
    output: NodeInput,
    slot: int,
    view: RecordAccessor,
    emit: Emit,
    unreadable: Fail,
    above: Ancestors,
    noted: Noted | None = None,
) -> NodeInput:
    """A copy into a sink of every message that an output takes; one that becomes an error there has not been output."""
    copy = build_hosted(slot, view, emit, unreadable, above)[0].record
    noted = noted or Noted()

    def both(take: Receive) -> Receive:
        def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
            noted.failed = False
            take(payload, origin, meta)
            if not noted.failed:
                copy(payload, origin, meta)

        return run

    return node_input(both(output.record), both(output.tombstone), above)


def _build_framed(
    written: FramedFormat,
    output: CompiledTopic,
    slot: int,
    view: RecordAccessor,
    emit: Emit,
    fail: Fail,
    above: Ancestors,
) -> NodeInput:
    frame = written.framer(_encoding(output))
    headers_for = _header_function(output, written, view, above)
    time_of = view.timestamp

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        try:
            known = view.meta(origin) if meta is None else meta
            # Ids are checked first: a frame with wrong metadata is encoded all the same, and no consumer could read it.
            if meta is not None:
                check_ids(meta)
            told = _touched(known, origin, time_of, headers_for(payload, origin, meta))
            record = (slot, frame(payload, known), *told, origin)
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        emit(record)

    return node_input(run, _build_tombstone(slot, view, emit, fail, headers_for), above)


def _build_tombstone(slot: int, view: RecordAccessor, emit: Emit, fail: Fail, headers_for: Any) -> Any:
    """A tombstone is written as a null value; it has no type, so nothing labels it."""
    time_of = view.timestamp

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        try:
            known = view.meta(origin) if meta is None else meta
            record = (slot, None, *_touched(known, origin, time_of, headers_for(payload, origin, meta)), origin)
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        emit(record)

    return run


def _touched(
    meta: MessageMeta, origin: Any, time_of: Callable[[Any], int | None], headers: Any
) -> tuple[bytes | None, int | None, Any]:
    """Key, time and headers of a record whose metadata user code may have set, each checked."""
    time = writable_time(meta.produced_at_ms)
    return writable_key(meta.key), time_of(origin) if time is None else time, writable_headers(headers)


def _encoding(output: CompiledTopic) -> Encoding:
    return Encoding(output.enc_hook, output.settings.json.decimal)


def _says_nothing_by_itself(output: CompiledTopic) -> bool:
    """Whether a record that came without headers leaves without any."""
    policy = output.settings.headers
    if output.settings.cloudevents:
        return False
    if policy is HeaderPolicy.NONE:
        return True
    if policy is HeaderPolicy.FULL or not output.payloads.known or _several(output):
        return False
    return all(getattr(t, "__loom_message_type__", None) is None for t in output.payloads.types)


def _several(output: CompiledTopic) -> bool:
    return not output.payloads.known or sum(t is not type(TOMBSTONE) for t in output.payloads.types) > 1


def _header_function(
    output: CompiledTopic, written: Format, view: RecordAccessor, above: Ancestors
) -> Callable[[Any, Any, MessageMeta | None], Any]:
    """(payload, origin, meta) -> the pairs to write, or `None`."""
    plain = _plain_headers(output, written, view)
    if not output.settings.cloudevents:
        return plain
    event = event_headers(output.step_id, output.name, written.content_type, view, above.indexes)

    def headers_for(payload: Any, origin: Any, meta: MessageMeta | None) -> Any:
        return rewritten(plain(payload, origin, meta) or (), event(payload, origin))

    return headers_for


def _plain_headers(
    output: CompiledTopic, written: Format, view: RecordAccessor
) -> Callable[[Any, Any, MessageMeta | None], Any]:
    policy = output.settings.headers
    if policy is HeaderPolicy.NONE:
        return lambda payload, origin, meta: None
    full = policy is HeaderPolicy.FULL
    label_of = label_function(policy, written.content_type, several_types=_several(output))
    pairs_of, meta_of = view.pairs, view.meta

    def headers_for(payload: Any, origin: Any, meta: MessageMeta | None) -> Any:
        label = label_of(payload.__class__)
        if payload is TOMBSTONE:
            label = dict.fromkeys(label)
        if meta is None and not full:
            # Untouched metadata: what the record carries passes through unchanged.
            return rewritten(pairs_of(origin), label) or None
        known = meta_of(origin) if meta is None else meta
        wanted = {**wanted_from_meta(known, full=full), **label}
        return rewritten(Headers.of(known.headers).pairs, wanted) or None

    return headers_for
