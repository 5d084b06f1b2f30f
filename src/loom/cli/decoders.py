"""Which type the records of a topic have, according to a flow: for looking at them, and for writing some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

from loom.cli.exit_codes import InputError
from loom.cli.load_flow import load_flow
from loom.cli.project import find_project, project_config
from loom.cli.record_lines import InputLine, LineReader
from loom.cli.records import TopicDecoder
from loom.core.config import ConfigContext
from loom.streaming.compiler.compile import compile_flow
from loom.streaming.compiler.model import Reads
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka.codec import DecodeError, MsgspecCodec
from loom.streaming.record import KafkaRecord

__all__ = ["Encode", "MakeRecord", "decoder_for", "encoder_for", "plan_of", "source_encoder", "typed_line"]

#: (a record whose value is JSON, where it comes from) -> the record as the flow reads it
Encode: TypeAlias = Callable[[KafkaRecord, str], KafkaRecord]
#: a line of input -> the record that it becomes; raises `InputError`
MakeRecord: TypeAlias = Callable[[InputLine], KafkaRecord]


def plan_of(flow: str | None, config: Path | None) -> CompiledPlan | None:
    """The plan of the flow that is named, else of the project's, if there is one."""
    named = flow or find_project().flow
    if named is None:
        return None
    return compile_flow(load_flow(named), config=ConfigContext.from_yaml(project_config(config)))


def decoder_for(topic: str, flow: str | None, config: Path | None, *, raw: bool) -> TopicDecoder:
    """What shows the records of a topic; `raw` without a flow, unless one is named."""
    plan = None if raw and flow is None else plan_of(flow, config)
    return TopicDecoder(plan, topic)


def encoder_for(make: LineReader, topic: str, flow: str | None, config: Path | None, *, raw: bool) -> MakeRecord:
    """What makes records of lines: checked against the type that the flow reads, in the flow's format; `raw` as `decoder_for`."""
    plan = None if raw and flow is None else plan_of(flow, config)
    if plan is None:
        return make
    encode = source_encoder(plan, topic)
    return lambda line: encode(make(typed_line(plan, line) if topic in plan.source.topics else line), line.where)


def source_encoder(plan: CompiledPlan, topic: str) -> Encode:
    """The same for a plan. A topic that the flow does not read, and one that it reads as several types, takes anything."""
    source = plan.source
    if topic not in source.topics or source.reads is not Reads.PAYLOAD or source.wire_format == "bytes":
        return lambda record, _: record
    payload, hook = source.payload, source.dec_hook
    as_json = MsgspecCodec(payload, "json", dec_hook=hook)
    written = None if source.wire_format == "json" else MsgspecCodec(payload, source.wire_format)

    def encode(record: KafkaRecord, where: str) -> KafkaRecord:
        found = as_json.decode(record)
        if isinstance(found, DecodeError):
            raise InputError(f"{where} is no {getattr(payload, '__name__', payload)}: {found.error}")
        return record if written is None else written.encode(topic, found.message)

    return encode


def typed_line(plan: CompiledPlan, line: InputLine) -> InputLine:
    """A line of cells, which are texts, as what the payload type says that they are; any other line as it is.

    Cells that the type has no use for stay texts, and the record is refused, or fails, for it.
    """
    if not line.cells or plan.source.reads is not Reads.PAYLOAD:
        return line
    try:
        found = msgspec.convert(
            msgspec.json.decode(line.text), plan.source.payload, strict=False, dec_hook=plan.source.dec_hook
        )
        return line._replace(text=msgspec.json.encode(found))
    except (msgspec.ValidationError, TypeError):
        return line
