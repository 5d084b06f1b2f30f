"""Payloads made up from a type, for a flow that has no input yet. Used by `loom dev`.

Plain data that decodes as the type: numbers within their bounds, one of the choices, now and then nothing where that is allowed.
"""

from __future__ import annotations

import datetime
import random
import string
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import inspect as known

from loom.core.config.shape import show
from loom.core.errors import LoomError

__all__ = ["CannotGenerateError", "payload_maker"]

#: how deep types that hold themselves are followed before only what must be there is made
_DEEPEST = 4
_WORDS = ("apple", "bread", "candle", "desk", "engine", "flower", "glove", "harbour", "island", "jacket")
_BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class CannotGenerateError(LoomError):
    """No payload can be made up for a type, so the flow needs input."""


def payload_maker(payload: Any, seed: int = 0) -> Callable[[], bytes]:
    """What makes one payload after another, as JSON; the same for the same seed.

    >>> make = payload_maker(tuple[int, str])
    >>> len(msgspec.json.decode(make()))
    2

    Raises `CannotGenerateError` for a type with a part that no made-up value fits.
    """
    try:
        found = known.type_info(payload)
    except (TypeError, NameError) as error:
        raise _cannot(payload, str(error)) from None
    source = random.Random(seed)
    decoder = msgspec.json.Decoder(payload)

    def make() -> bytes:
        why = ""
        for _ in range(20):
            value = msgspec.json.encode(_value(found, source, 0))
            try:
                decoder.decode(value)
            except msgspec.ValidationError as error:
                why = str(error)  # a check of the author's own, perhaps; the next value may pass it
                continue
            return value
        raise _cannot(payload, why)

    make()
    source.seed(seed)
    return make


def _cannot(payload: Any, why: str) -> CannotGenerateError:
    return CannotGenerateError(
        f"no payload of the type {show(payload)} can be made up: {why}. Give the flow input: --input FILE"
    )


def _value(node: Any, source: random.Random, depth: int) -> Any:
    made = _SIMPLE.get(type(node))
    if made is not None:
        return made(node, source)
    if isinstance(node, known.Metadata):
        return _value(node.type, source, depth)
    if isinstance(node, known.UnionType):
        arms = [arm for arm in node.types if not isinstance(arm, known.NoneType)] or list(node.types)
        nothing = len(arms) < len(node.types)
        if nothing and (depth >= _DEEPEST or source.random() < 0.2):
            return None
        return _value(source.choice(arms), source, depth + 1)
    if isinstance(node, known.TupleType):
        return [_value(item, source, depth + 1) for item in node.item_types]
    if isinstance(node, (known.ListType, known.VarTupleType, known.SetType, known.FrozenSetType)):
        return [_value(node.item_type, source, depth + 1) for _ in range(_length(node, source, depth))]
    if isinstance(node, known.DictType):
        keys = [_value(node.key_type, source, depth + 1) for _ in range(_length(node, source, depth))]
        return {key if isinstance(key, str) else str(key): _value(node.value_type, source, depth + 1) for key in keys}
    if isinstance(node, known.StructType):
        return _struct(node, source, depth)
    if isinstance(node, (known.DataclassType, known.TypedDictType)):
        return _fields(node.fields, source, depth)
    if isinstance(node, known.NamedTupleType):
        return [_value(field.type, source, depth + 1) for field in node.fields]
    raise CannotGenerateError(
        f"no value of the type {getattr(node, 'cls', type(node)).__name__} can be made up. Give the flow input: --input FILE"
    )


def _struct(node: known.StructType, source: random.Random, depth: int) -> Any:
    if node.array_like:
        values = [_value(field.type, source, depth + 1) for field in node.fields]
        return values if node.tag is None else [node.tag, *values]
    tag = {} if node.tag is None else {str(node.tag_field): node.tag}
    return {**tag, **_fields(node.fields, source, depth)}


def _fields(fields: Any, source: random.Random, depth: int) -> Mapping[str, Any]:
    made = {}
    for field in fields:
        may_lack = not field.required
        if may_lack and (depth >= _DEEPEST or source.random() < 0.3):
            continue
        made[field.encode_name] = _value(field.type, source, depth + 1)
    return made


def _length(node: Any, source: random.Random, depth: int) -> int:
    least = node.min_length or 0
    most = node.max_length if node.max_length is not None else least + 3
    return least if depth >= _DEEPEST else source.randint(max(least, min(1, most)), min(most, least + 3))


def _int(node: known.IntType, source: random.Random) -> int:
    low = node.ge if node.ge is not None else node.gt + 1 if node.gt is not None else None
    high = node.le if node.le is not None else node.lt - 1 if node.lt is not None else None
    low = (1 if high is None or high >= 1 else high - 100) if low is None else low
    high = low + 99 if high is None else high
    step = node.multiple_of or 1
    return source.randint(-(-low // step), max(-(-low // step), high // step)) * step


def _float(node: known.FloatType, source: random.Random) -> float:
    low = node.ge if node.ge is not None else node.gt if node.gt is not None else None
    high = node.le if node.le is not None else node.lt if node.lt is not None else None
    low = (0.0 if high is None or high > 0 else high - 100) if low is None else low
    high = low + 100 if high is None else high
    made = low + (high - low) * source.uniform(0.01, 0.99)
    return round(made, 2) if low < round(made, 2) < high else made


def _text(node: known.StrType, source: random.Random) -> str:
    word = source.choice(_WORDS)
    least, most = node.min_length or 0, node.max_length
    word += "".join(source.choices(string.ascii_lowercase, k=max(0, least - len(word))))
    return word if most is None else word[:most]


def _bytes(node: Any, source: random.Random) -> bytes:
    return source.randbytes(max(node.min_length or 0, min(4, node.max_length if node.max_length is not None else 4)))


def _moment(node: known.DateTimeType, source: random.Random) -> datetime.datetime:
    made = _BEGIN + datetime.timedelta(seconds=source.randrange(365 * 86_400))
    return made if node.tz is not False else made.replace(tzinfo=None)


_SIMPLE: dict[type, Callable[[Any, random.Random], Any]] = {
    known.AnyType: lambda _, source: source.choice(_WORDS),
    known.RawType: lambda _, source: source.choice(_WORDS),
    known.NoneType: lambda _, __: None,
    known.BoolType: lambda _, source: source.random() < 0.5,
    known.IntType: _int,
    known.FloatType: _float,
    known.StrType: _text,
    known.BytesType: _bytes,
    known.ByteArrayType: _bytes,
    known.MemoryViewType: _bytes,
    known.DateTimeType: _moment,
    known.DateType: lambda _, source: (_BEGIN + datetime.timedelta(days=source.randrange(365))).date(),
    known.TimeType: lambda node, source: _moment(node, source).timetz(),
    known.TimeDeltaType: lambda _, source: datetime.timedelta(seconds=source.randrange(86_400)),
    known.UUIDType: lambda _, source: uuid.UUID(int=source.getrandbits(128), version=4),
    known.DecimalType: lambda _, source: Decimal(source.randrange(10_000)) / 100,
    known.EnumType: lambda node, source: source.choice([member.value for member in node.cls]),
    known.LiteralType: lambda node, source: source.choice(node.values),
}
