"""Records of several payload types in one topic, distinguished by their message type, and by its version
where several have the same. Hot path of such sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from loom.streaming.compiler.model import CompiledSource
from loom.streaming.formats.registry import reading_of
from loom.streaming.headers import HeaderPairs
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.kafka.record_headers import CE_TYPE, MESSAGE_TYPE, MESSAGE_VERSION, whole_number
from loom.streaming.message import MessageMeta, loom_message_type, loom_message_version

__all__ = ["DecodeRecord", "UnlabelledError", "labelled_decoder"]

T = TypeVar("T")

#: (origin, value) -> payload and metadata (`None`: the origin's); raises for what does not decode
DecodeRecord: TypeAlias = Callable[[Any, bytes], tuple[Any, MessageMeta | None]]


class UnlabelledError(Exception):
    """A record does not say what it holds, or says something that this source does not know."""


def labelled_decoder(source: CompiledSource, view: RecordAccessor) -> DecodeRecord:
    """Decode each record as the type that its label names, and its version where several types have that label."""
    by_label: dict[bytes, dict[int, Any]] = {}
    for payload in source.payloads:
        by_label.setdefault(loom_message_type(payload).encode(), {})[loom_message_version(payload)] = payload
    types = {label: next(iter(versions.values())) for label, versions in by_label.items() if len(versions) == 1}
    several = {label: versions for label, versions in by_label.items() if len(versions) > 1}
    known = ", ".join(sorted(label.decode() for label in by_label))
    reading = reading_of(source.settings.format)
    framed = reading.framed or reading.beside
    always_framed = reading.framed is not None
    hook = source.dec_hook
    bare = {label: reading.format.decoder(t, hook) for label, t in types.items()}
    opened = {label: framed.unframer(t, hook) for label, t in types.items()} if framed is not None else {}
    bare_version = _by_version(several, lambda payload: reading.format.decoder(payload, hook))
    opened_version = _by_version(several, lambda payload: framed.unframer(payload, hook)) if framed is not None else {}
    pairs_of, meta_of = view.pairs, view.meta

    def refuse(label: bytes | None, version: int | None) -> UnlabelledError:
        if label is None:
            return UnlabelledError(
                f"the record does not say its type, and this source reads several ({known}). Let its producer write the "
                "header x-message-type: with headers: full, or with __loom_message_type__ on the payload class"
            )
        name = label.decode("utf-8", "replace")
        if label not in several:
            return UnlabelledError(f"the message type {name!r} is none of {known}")
        versions = ", ".join(map(str, sorted(several[label])))
        found = "says none" if version is None else f"says {version}"
        return UnlabelledError(
            f"this source reads the versions {versions} of the message type {name!r}, and the record {found}. Let its "
            "producer write the header x-message-version: from __loom_message_version__ on the payload class"
        )

    def decode(origin: Any, value: bytes) -> tuple[Any, MessageMeta | None]:
        if framed is not None and (always_framed or framed.recognises(value)):
            label, version = framed.label(value)
            open_as = opened.get(label) if label is not None else None
            if open_as is None:
                open_as = opened_version.get((label, version))
            if open_as is None:
                raise refuse(label, version)
            found = open_as(value)
            return found.payload, found.over(meta_of(origin))
        label = event_type = None
        for name, content in pairs_of(origin):
            if name == MESSAGE_TYPE:
                label = content
            elif name == CE_TYPE:
                event_type = content
        # A CloudEvent, where our own header says nothing.
        label = label or event_type
        decode_as = bare.get(label) if label else None
        if decode_as is None:
            version = _version_in(pairs_of(origin)) if label in several else None
            decode_as = bare_version.get((label, version))
            if decode_as is None:
                raise refuse(label or None, version)
        return decode_as(value), None

    return decode


def _by_version(
    several: Mapping[bytes, Mapping[int, Any]], decoder: Callable[[Any], Callable[[bytes], T]]
) -> dict[tuple[bytes | None, int | None], Callable[[bytes], T]]:
    """The decoders of labels that several types have, by label and version."""
    return {
        (label, version): decoder(payload)
        for label, versions in several.items()
        for version, payload in versions.items()
    }


def _version_in(pairs: HeaderPairs) -> int | None:
    """The version that headers name; the last one counts, as it does in any header."""
    version = None
    for name, content in pairs:
        if name == MESSAGE_VERSION:
            version = whole_number(content or b"")
    return version
