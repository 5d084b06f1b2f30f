"""Records of several payload types in one topic, told apart by their message type. Hot path of such sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from loom.streaming.compiler.plan import CompiledSource
from loom.streaming.kafka.formats import decode_payload, envelope_decoder, looks_like_envelope, peek_message_type
from loom.streaming.kafka.settings import WireFormat
from loom.streaming.kafka.view import OriginView
from loom.streaming.kafka.wire import MESSAGE_TYPE, meta_from_envelope
from loom.streaming.message import MessageMeta, loom_message_type

__all__ = ["DecodeRecord", "UnlabelledError", "labelled_decoder"]

#: (origin, value) -> payload and metadata (`None`: the origin's); raises for what does not decode
DecodeRecord: TypeAlias = Callable[[Any, bytes], tuple[Any, MessageMeta | None]]


class UnlabelledError(Exception):
    """A record does not say what it holds, or says something that this source does not know."""


def labelled_decoder(source: CompiledSource, view: OriginView) -> DecodeRecord:
    """Decode each record as the type that its label names."""
    types = {loom_message_type(payload).encode(): payload for payload in source.payloads}
    known = ", ".join(sorted(loom_message_type(payload) for payload in source.payloads))
    sealed = source.wire_format is WireFormat.ENVELOPE
    bare = {} if sealed else {label: decode_payload(source.wire_format, t) for label, t in types.items()}
    opened = {label: envelope_decoder(t) for label, t in types.items()}
    pairs_of, meta_of = view.pairs, view.meta
    may_be_sealed = sealed or source.recognise_envelope

    def refuse(label: bytes | None) -> UnlabelledError:
        if label is None:
            return UnlabelledError(
                f"the record does not say its type, and this source reads several ({known}). Let its producer write the "
                "header x-message-type: with headers: full, or with __loom_message_type__ on the payload class"
            )
        return UnlabelledError(f"the message type {label.decode('utf-8', 'replace')!r} is none of {known}")

    def decode(origin: Any, value: bytes) -> tuple[Any, MessageMeta | None]:
        if may_be_sealed and (sealed or looks_like_envelope(value)):
            label = peek_message_type(value)
            open_as = opened.get(label) if label is not None else None
            if open_as is None:
                raise refuse(label)
            envelope = open_as(value)
            return envelope.payload, meta_from_envelope(meta_of(origin), envelope.meta)
        label = None
        for name, content in pairs_of(origin):
            if name == MESSAGE_TYPE:
                label = content
        decode_as = bare.get(label) if label else None
        if decode_as is None:
            raise refuse(label or None)
        return decode_as(value), None

    return decode
