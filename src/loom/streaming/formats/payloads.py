"""Whether msgspec reads and writes a payload type, and what to write where it does not. Compile time only."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
from msgspec import inspect as known

from loom.core.config.shape import bare, is_union, show
from loom.core.model import LoomFrozenStruct, LoomStruct
from loom.streaming.formats.unreadable import find_unreadable

__all__ = ["PayloadProblem", "keys_not_text", "unreadable_payload", "unwritable_payload"]

#: a subclass of one of these is written as its base is
_PLAIN = (int, float, str, bytes, dict, list, tuple, set, frozenset)
#: what a value is decoded as where the type names no other; anything else has to be one of these
_DECODED = (dict, list, str, int, float, bool, type(None))
#: no JSON key, which is a text, becomes one of these; nor is one of them written as a key
_NO_KEYS = (
    known.BoolType,
    known.NoneType,
    known.ListType,
    known.SetType,
    known.FrozenSetType,
    known.TupleType,
    known.VarTupleType,
    known.DictType,
    known.StructType,
    known.DataclassType,
    known.TypedDictType,
    known.NamedTupleType,
)
_DECODE_IN_A_STEP = "read payload=bytes with `format: bytes` at the consumer, and decode it in the first step"


class PayloadProblem(LoomFrozenStruct):
    """Why a format cannot hold a payload type, and how to fix it."""

    message: str
    remedy: str
    expected: str = "a LoomStruct or LoomFrozenStruct type, with fields that records can hold"


def unreadable_payload(payload: Any) -> PayloadProblem | None:
    """Why msgspec cannot read this payload type, or `None`."""
    origin = get_origin(payload) or payload
    if not (isinstance(origin, type) and issubclass(origin, (LoomStruct, LoomFrozenStruct))):
        return PayloadProblem("a source's payload is a struct, so that its fields are checked", _instead(payload))
    try:
        msgspec.json.Decoder(payload)
    except (TypeError, NameError) as error:
        return PayloadProblem(f"this type cannot be read: {error}", find_unreadable(payload, error))
    problem = unwritable_payload(payload)
    if problem is not None:
        return problem
    for place, cls in _strangers(known.type_info(payload)):
        if not _may_be_decoded(cls):
            message = f"this type cannot be read: no record is decoded as a {cls.__qualname__}"
            return PayloadProblem(message, _another(place, cls))
    return None


def unwritable_payload(payload: Any) -> PayloadProblem | None:
    """Why msgspec cannot write this payload type, or `None`; what cannot be told beforehand is left to the run."""
    try:
        found = known.type_info(payload)
    except (TypeError, NameError):
        return None  # only reading needs such an annotation
    for place, cls in _strangers(found):
        # An abstract class or `object` may stand for something that can be written.
        if cls is not object and not inspect.isabstract(cls) and not issubclass(cls, _PLAIN):
            message = f"this type cannot be written: no format of ours holds a {cls.__qualname__}"
            return PayloadProblem(message, _another(place or (cls if cls is payload else ""), cls))
    return None


def keys_not_text(payload: Any) -> PayloadProblem | None:
    """Why a format whose keys are all text cannot hold this payload type, or `None`."""
    try:
        found = known.type_info(payload)
    except (TypeError, NameError):
        return None
    for place, node in _nodes(found, "", set()):
        if isinstance(node, known.DictType) and _is_no_key(node.key_type):
            named = f" of the field {place}" if place else ""
            return PayloadProblem(
                f"this type cannot be written: the keys{named} are no texts, and JSON has no others",
                f"give the mapping{named} keys of text, or make it a list of structs; format: msgpack takes any key",
            )
    return None


def _instead(payload: Any) -> str:
    """What to write in the place of a source's payload that is no struct of ours."""
    if isinstance(payload, str):
        return f"write the class itself, not its name: payload={payload}"
    shape = bare(payload)
    arms = [arm for arm in get_args(shape) if arm is not type(None)] if is_union(shape) else [shape]
    structs = [arm for arm in arms if isinstance(get_origin(arm) or arm, type) and _is_struct(get_origin(arm) or arm)]
    if structs == arms and len(arms) == 1:
        why = ": a record without a value is a Tombstone anyway" if is_union(shape) else ""
        return f"write payload={show(arms[0])}{why}"
    if structs == arms:
        payloads = ", ".join(map(show, arms))
        return (
            f"write FromMultiTypeTopic(…, payloads=({payloads})), which tells them apart by the header x-message-type; "
            f"without that header, {_DECODE_IN_A_STEP}: msgspec.json.decode(value, type={show(payload)})"
        )
    if isinstance(shape, type) and shape.__module__ not in ("builtins", "typing", "collections"):
        if type(shape) is type and shape.__bases__ == (object,) and not hasattr(shape, "__dataclass_fields__"):
            return f"let {show(shape)} inherit from LoomFrozenStruct, with fields of types that msgspec knows"
        return f"write it as a struct with the same fields: class {show(shape)}(LoomFrozenStruct): …"
    decode = f"{_DECODE_IN_A_STEP}: msgspec.json.decode(value, type={show(payload)})"
    if issubclass(get_origin(shape) or shape, dict) if isinstance(get_origin(shape) or shape, type) else False:
        return f"declare the fields that you need in a class …(LoomFrozenStruct), which ignores the others; or {decode}"
    return decode


def _is_struct(cls: type) -> bool:
    return issubclass(cls, (LoomStruct, LoomFrozenStruct))


def _another(place: str | type, cls: type) -> str:
    """What to write in the place of a class that no record holds; `place` names the field, or is the payload itself."""
    if isinstance(place, type) or not place:
        return f"let {cls.__qualname__} inherit from LoomFrozenStruct, or make something else of it in a step"
    plain = next((base.__name__ for base in _PLAIN if issubclass(cls, base)), None)
    if plain is None and "Path" in (base.__name__ for base in cls.__mro__):
        plain = "str"
    if plain is None and hasattr(cls, "__iter__"):
        plain = "list"
    known_types = (
        f"{plain}" if plain is not None else "a type that msgspec knows (str, int, datetime, list, a struct …)"
    )
    return f"give the field {place} {known_types} in the place of {cls.__qualname__}, or leave it out"


def _may_be_decoded(cls: type) -> bool:
    try:
        return any(issubclass(decoded, cls) for decoded in _DECODED)
    except TypeError:  # a protocol, of which nothing can be told to be an instance
        return False


def _is_no_key(node: Any) -> bool:
    if isinstance(node, known.UnionType):
        return all(map(_is_no_key, node.types))
    return isinstance(node, _NO_KEYS)


def _strangers(node: Any) -> Iterator[tuple[str, type]]:
    """The classes in a type that msgspec does not know, each with the field that it stands in."""
    for place, found in _nodes(node, "", set()):
        if isinstance(found, known.CustomType):
            yield place, found.cls


def _nodes(node: Any, place: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Every type within a type, each with the field that it stands in."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, tuple):
        for part in node:
            yield from _nodes(part, place, seen)
    elif isinstance(node, known.Field):
        yield from _nodes(node.type, place, seen)
    elif isinstance(node, known.Type):
        yield place, node
        owner = getattr(node, "cls", None)
        for name in node.__struct_fields__:
            part = getattr(node, name)
            if name == "fields" and owner is not None:
                for field in part:
                    yield from _nodes(field, f"{owner.__qualname__}.{field.name}", seen)
            elif name not in ("cls", "default", "default_factory"):
                yield from _nodes(part, place, seen)
