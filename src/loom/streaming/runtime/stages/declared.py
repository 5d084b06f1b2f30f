"""The classes of declared payload types, to check results by: shallow, and only where a class can tell. Build time only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, is_typeddict

from msgspec import inspect

from loom.core.config.shape import bare, is_union
from loom.streaming.compiler.model import PayloadTypes
from loom.streaming.formats.type_nodes import type_info

__all__ = ["classes_of", "exact_classes"]

#: a type checker accepts these in place of their keys (PEP 484, the numeric tower)
_TAKEN_FOR: dict[type, tuple[type, ...]] = {float: (float, int), complex: (complex, float, int)}


class _Open(Exception):
    """No class tells whether a value is of this type."""


def classes_of(payloads: PayloadTypes) -> tuple[type, ...] | None:
    """The classes whose instances these types admit; `None` where no class can tell.

    >>> classes_of(PayloadTypes((list[int], float)))
    (<class 'list'>, <class 'float'>, <class 'int'>)
    """
    if not payloads.known:
        return None
    try:
        return tuple(dict.fromkeys(found for hint in payloads.types for found in _classes(hint)))
    except _Open:
        return None


def exact_classes(payload: Any) -> frozenset[type]:
    """The classes that a decoded payload is an instance of, exactly; empty where its type leaves that open.

    >>> sorted(cls.__name__ for cls in exact_classes(dict[str, int] | list[int]))
    ['dict', 'list']
    """
    try:
        info: inspect.Type = type_info(payload)
    except (TypeError, NameError):
        return frozenset()
    found = {_exact_class(one) for one in (info.types if isinstance(info, inspect.UnionType) else (info,))}
    return frozenset() if None in found else frozenset(cls for cls in found if cls is not None)


def _exact_class(info: inspect.Type) -> type | None:
    if isinstance(info, inspect.StructType | inspect.DataclassType | inspect.NamedTupleType):
        return info.cls
    return next((cls for kind, cls in _DECODED_AS.items() if isinstance(info, kind)), None)


_DECODED_AS: dict[type[inspect.Type], type] = {
    inspect.BytesType: bytes,
    inspect.StrType: str,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.BoolType: bool,
    inspect.DictType: dict,
    inspect.TypedDictType: dict,
    inspect.ListType: list,
    inspect.SetType: set,
    inspect.FrozenSetType: frozenset,
    inspect.TupleType: tuple,
    inspect.VarTupleType: tuple,
}


def _classes(hint: Any) -> Iterator[type]:
    hint = bare(hint)
    origin = get_origin(hint)
    if is_union(hint):
        for arm in get_args(hint):
            yield from _classes(arm)
    elif origin is Literal:
        yield from map(type, get_args(hint))
    elif is_typeddict(origin or hint):
        yield dict
    else:
        cls = hint if origin is None else origin
        try:
            isinstance(None, cls)
        except TypeError:  # a protocol that is not checked at run time, `NoReturn`, a string
            raise _Open from None
        yield from _TAKEN_FOR.get(cls, (cls,))
