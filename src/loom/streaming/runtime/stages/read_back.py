"""Dead letters as a source: each becomes an `ErrorEnvelope` again. Rare path, so clarity wins."""

from __future__ import annotations

from typing import Any

from loom.streaming.compiler.model import CompiledSource
from loom.streaming.kafka.read_back import dead_letter_reader
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.message import MessageMeta
from loom.streaming.runtime.stages.told_apart import DecodeRecord

__all__ = ["dead_letter_decoder"]


def dead_letter_decoder(source: CompiledSource, view: RecordAccessor) -> DecodeRecord:
    """Decode each record as the dead letter that it is."""
    read = dead_letter_reader(source.payloads, source.settings.format, source.dec_hook)

    def decode(origin: Any, value: bytes) -> tuple[Any, MessageMeta | None]:
        return read(view.record(origin)), None

    return decode
