"""The head of a stage: bytes become payloads. Hot path.

Whatever a value holds, the outcome is a payload, a tombstone or a `WIRE` error; nothing a broker can hand over raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from loom.streaming.bytewax.stages.entry import Entry
from loom.streaming.bytewax.stages.failures import NOT_DECODED, Fail
from loom.streaming.bytewax.stages.straight import Straight, build_loop
from loom.streaming.compiler.plan import CompiledSource
from loom.streaming.kafka.formats import decode_payload, envelope_decoder, looks_like_envelope
from loom.streaming.kafka.settings import WireFormat
from loom.streaming.kafka.view import OriginView
from loom.streaming.kafka.wire import meta_from_envelope
from loom.streaming.message import TOMBSTONE, Message

__all__ = ["Head", "build_head"]

#: takes the records of one batch
Head = Callable[[Sequence[Any]], None]


def build_head(source: CompiledSource, view: OriginView, entry: Entry, fail: Fail, straight: Straight) -> Head:
    """The loop over one batch of records. `straight` is the part of the flow that the loop itself can run."""
    if source.wire_format is WireFormat.ENVELOPE:
        return _envelope_head(source, view, entry, fail)
    return build_loop(
        straight,
        view,
        decode_payload(source.wire_format, source.payload),
        _without_value(entry),
        _second_look(source, view, entry, fail),
    )


def _without_value(entry: Entry) -> Callable[[Any], None]:
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
    source: CompiledSource, view: OriginView, entry: Entry, fail: Fail
) -> Callable[[Exception, bytes, Any], None]:
    """What becomes of a value that did not decode: on a consumer's default format it may be an envelope."""
    opened = envelope_decoder(source.payload) if source.recognise_envelope else None

    def look(error: Exception, value: bytes, origin: Any) -> None:
        if opened is not None and looks_like_envelope(value):
            try:
                envelope = opened(value)
            except Exception as inner:
                fail(inner, NOT_DECODED, origin, None)
                return
            entry.record(envelope.payload, origin, meta_from_envelope(view.meta(origin), envelope.meta))
            return
        fail(error, NOT_DECODED, origin, None)

    return look


def _envelope_head(source: CompiledSource, view: OriginView, entry: Entry, fail: Fail) -> Head:
    opened = envelope_decoder(source.payload)
    value_of, meta_of, record, without_value = view.value, view.meta, entry.record, _without_value(entry)

    def run(origins: Sequence[Any]) -> None:
        for origin in origins:
            value = value_of(origin)
            if value is None:
                without_value(origin)
                continue
            try:
                envelope = opened(value)
                meta = meta_from_envelope(meta_of(origin), envelope.meta)
            except Exception as error:
                fail(error, NOT_DECODED, origin, None)
                continue
            record(envelope.payload, origin, meta)

    return run
