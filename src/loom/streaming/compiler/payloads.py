"""Whether a payload type can stand in a record: asked for the source and for everything that is written."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_origin

import msgspec

from loom.core.model import LoomFrozenStruct, LoomStruct

__all__ = ["why_not_read", "why_not_written"]

#: a subclass of one of these is written as its base is
_PLAIN = (int, float, str, bytes, dict, list, tuple, set, frozenset)


def why_not_read(payload: Any) -> str | None:
    """Why a source cannot read this payload type, or `None`."""
    origin = get_origin(payload) or payload
    if not (isinstance(origin, type) and issubclass(origin, (LoomStruct, LoomFrozenStruct))):
        return "a source's payload is a struct, so that its fields are checked"
    try:
        msgspec.json.Decoder(payload)
    except (TypeError, NameError) as error:
        return f"this type cannot be read: {error}"
    return why_not_written(payload)


def why_not_written(payload: Any) -> str | None:
    """Why an output cannot write this payload type, or `None`; what cannot be told beforehand is left to the run."""
    try:
        known = msgspec.inspect.type_info(payload)
    except (TypeError, NameError):
        return None  # only reading needs such an annotation
    stranger = next(_strangers(known, set()), None)
    if stranger is None:
        return None
    return f"this type cannot be written: no format of ours holds a {stranger.__qualname__}"


def _strangers(node: Any, seen: set[int]) -> Iterator[type]:
    """The classes in a type that msgspec does not know."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, msgspec.inspect.CustomType):
        # An abstract class or `object` may stand for something that can be written.
        if node.cls is not object and not inspect.isabstract(node.cls) and not issubclass(node.cls, _PLAIN):
            yield node.cls
    elif isinstance(node, tuple):
        for part in node:
            yield from _strangers(part, seen)
    elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field):
        for name in node.__struct_fields__:
            if name not in ("cls", "default", "default_factory"):
                yield from _strangers(getattr(node, name), seen)
