"""Records as the tools show them: decoded where the flow says how, and as JSON from which the record can be made again.

A text of JSON is the text of the bytes where these are UTF-8, else `{"base64": …}`, so nothing is changed on the way.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from loom.cli.exit_codes import InputError
from loom.cli.show import instant
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import Reads
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.headers import Headers
from loom.streaming.kafka.codec import DecodeError, MsgspecCodec
from loom.streaming.kafka.record_headers import MESSAGE_TYPE
from loom.streaming.message import TOMBSTONE, has_message_type, loom_message_type
from loom.streaming.record import KafkaRecord

__all__ = ["Shown", "TopicDecoder", "bytes_of", "plain", "record_document", "record_from", "record_line", "text_of"]

#: the first byte of a MessagePack map or array
_MSGPACK = frozenset([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])


class Shown(LoomFrozenStruct):
    """The value of a record as data, what it was read as, and why that failed where it did."""

    payload: Any
    read_as: str
    problem: str | None = None


class TopicDecoder:
    """Decodes the records of one topic as the flow reads or writes it; without a flow as what they look like."""

    def __init__(self, plan: CompiledPlan | None, topic: str) -> None:
        self._codecs = dict(_codecs(plan, topic)) if plan is not None else {}

    def __call__(self, record: KafkaRecord) -> Shown:
        if record.value is None:
            return Shown(None, "tombstone")
        codec = self._codec_of(record)
        if codec is None:
            return plain(record.value)
        found = codec[1].decode(record)
        if isinstance(found, DecodeError):
            seen = plain(record.value)
            return Shown(seen.payload, seen.read_as, f"is no {codec[0]}: {found.error}")
        payload = found.message.payload
        return Shown(None if payload is TOMBSTONE else _builtins(payload), codec[0])

    def _codec_of(self, record: KafkaRecord) -> tuple[str, MsgspecCodec[Any]] | None:
        if len(self._codecs) == 1:
            (found,) = self._codecs.values()
            return found
        label = Headers.of(record.headers).get(MESSAGE_TYPE)
        return self._codecs.get(label.decode("utf-8", "replace")) if label is not None else None


def _codecs(plan: CompiledPlan, topic: str) -> Iterable[tuple[str, tuple[str, MsgspecCodec[Any]]]]:
    """By message type, what reads the records of a topic. Dead letters hold the records of the source."""
    source = plan.source
    read_as = source.settings.format
    if topic in source.topics and source.reads is Reads.DEAD_LETTERS:
        return
    routes = {one.output.topic for one in plan.error_routes if one.output.settings.format != "envelope"}
    dead = routes | {one.dlq.topic for one in plan.topics() if one.dlq is not None}
    if topic in source.topics or topic in dead:
        payloads, hook = source.payloads, source.dec_hook
    else:
        outputs = [one for one in plan.topics() if one.topic == topic and one.payloads.known]
        payloads = tuple({payload: None for one in outputs for payload in one.payloads.types})
        read_as, hook = (outputs[0].settings.format if outputs else None), None
    for payload in payloads:
        name = loom_message_type(payload) if has_message_type(payload) else str(payload)
        yield name, (getattr(payload, "__name__", name), MsgspecCodec(payload, read_as, dec_hook=hook))


def plain(value: bytes) -> Shown:
    """A value as what it looks like.

    >>> plain(b'{"id": 7}'), plain(b"hello"), plain(b"\\xff")
    (Shown(payload={'id': 7}, read_as='json', problem=None), Shown(payload='hello', read_as='text', problem=None), \
Shown(payload={'base64': '/w=='}, read_as='bytes', problem=None))
    """
    attempts: list[tuple[str, Callable[[bytes], Any]]] = [("json", msgspec.json.decode)]
    if value[:1] and value[0] in _MSGPACK:
        attempts.append(("msgpack", lambda found: _builtins(msgspec.msgpack.decode(found))))
    for name, decode in attempts:
        try:
            return Shown(decode(value), name)
        except (msgspec.MsgspecError, ValueError, TypeError):
            continue
    text = text_of(value)
    return Shown(text, "text" if isinstance(text, str) else "bytes")


def _builtins(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=str))


def text_of(value: bytes | None) -> Any:
    """Bytes as a JSON value from which `bytes_of` makes them again.

    >>> text_of(b"a"), text_of(None), text_of(b"\\xff")
    ('a', None, {'base64': '/w=='})
    """
    if value is None:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def bytes_of(found: Any, where: str) -> bytes | None:
    """What `text_of` was given. Raises `InputError` for anything else."""
    if found is None:
        return None
    if isinstance(found, str):
        return found.encode("utf-8", "surrogatepass")
    if isinstance(found, Mapping) and list(found) == ["base64"] and isinstance(found["base64"], str):
        try:
            return base64.b64decode(found["base64"], validate=True)
        except binascii.Error as error:
            raise InputError(f"{where} is no base64: {error}") from None
    raise InputError(f'{where} is neither a text, null nor {{"base64": …}}')


def record_document(record: KafkaRecord, shown: Shown) -> dict[str, Any]:
    """A record as JSON: what `loom topics tail --json` prints, and `loom topics produce --records` takes."""
    document: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": text_of(record.key),
        "headers": [[name, text_of(value)] for name, value in Headers.of(record.headers).pairs],
        "value": text_of(record.value),
        "payload": shown.payload,
        "read_as": shown.read_as,
    }
    if shown.problem is not None:
        document["problem"] = shown.problem
    return document


def record_from(document: Any, topic: str, where: str) -> KafkaRecord:
    """The record that a document describes, for `topic`. Its value is `value`, or else `payload` as JSON.

    Raises `InputError` for what is no such document.
    """
    if not isinstance(document, Mapping) or not ({"value", "payload"} & set(document)):
        raise InputError(f'{where} is no record: it needs a "value" or a "payload"')
    headers = document.get("headers") or []
    pairs = list(headers.items()) if isinstance(headers, Mapping) else headers
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise InputError(f'{where}: "headers" is neither an object nor a list of [name, value]')
    time = document.get("timestamp_ms")
    if time is not None and not (isinstance(time, int) and time >= 0):
        raise InputError(f'{where}: "timestamp_ms" is no number of milliseconds')
    value = (
        bytes_of(document["value"], f'{where}: "value"')
        if "value" in document
        else msgspec.json.encode(document["payload"])
    )
    return KafkaRecord(
        topic,
        bytes_of(document.get("key"), f'{where}: "key"'),
        value,
        Headers((name, bytes_of(one, f"{where}: header {name!r}")) for name, one in pairs),
        timestamp_ms=time,
    )


def record_line(record: KafkaRecord, shown: Shown, *, headers: bool = False) -> str:
    """A record for a person: where it is, when it was written, its key, its value."""
    payload = "null" if record.value is None else msgspec.json.encode(shown.payload).decode()
    key = "" if record.key is None else f"  key={_key(record.key)}"
    lines = [
        f"{record.topic}[{record.partition}]@{record.offset}  {instant(record.timestamp_ms)}{key}  {payload}"
        + (f"  ({shown.problem})" if shown.problem is not None else "")
    ]
    if headers:
        pairs = Headers.of(record.headers).pairs
        lines += [f"    {name}: {'null' if value is None else _key(value)}" for name, value in pairs]
    return "\n".join(lines)


def _key(value: bytes) -> str:
    text = text_of(value)
    return text if isinstance(text, str) and text.isprintable() else repr(value)
