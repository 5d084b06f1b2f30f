"""Walks a type as msgspec understands it: every type within it, with the field that holds it. Build time only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Any, TypeVar

from msgspec import inspect as known

__all__ = ["once_per_type", "strangers", "type_info", "type_nodes"]

Found = TypeVar("Found")

#: so many types are remembered: a process has few, and a test suite many
_KEPT = 128


def once_per_type(find: Callable[[Any], Found]) -> Callable[[Any], Found]:
    """Computes something of a type once: each worker of a process builds a stage, and after a rebalance another.

    What it returns is shared, so it must not be changed. An exception is not remembered.
    """
    remembered = lru_cache(maxsize=_KEPT, typed=True)(find)

    @wraps(find)
    def found(payload: Any) -> Found:
        try:
            hash(payload)
        except TypeError:
            return find(payload)
        return remembered(payload)

    return found


@once_per_type
def type_info(payload: Any) -> known.Type:
    """What msgspec knows of a type.

    >>> type_info(int) is type_info(int)
    True

    Raises what `msgspec.inspect.type_info` raises.
    """
    return known.type_info(payload)


def type_nodes(node: Any) -> Iterator[tuple[str, Any]]:
    """Every type within `type_info(…)`, each with the field that holds it."""
    return _nodes(node, "", set())


def strangers(node: Any) -> Iterator[tuple[str, type]]:
    """The classes in a type that msgspec does not know, each with the field that holds it."""
    for place, found in type_nodes(node):
        if isinstance(found, known.CustomType):
            yield place, found.cls


def _nodes(node: Any, place: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
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
