"""What a type annotation says about the attributes and items of its values.

Used by `checking.py`. Unknown types are `Any`; what certainly does not exist is `MISSING`.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from loom.core.config.shape import bare, element_hints, is_union, mapping_hints

__all__ = ["MISSING", "Missing", "attribute_of", "fields_of", "is_method", "item_of", "members"]


class Missing(enum.Enum):
    """Marks an attribute or item that no value of a type has."""

    MISSING = enum.auto()


MISSING: Final = Missing.MISSING


def members(hints: Iterable[Any]) -> tuple[Any, ...]:
    """The alternatives that annotations offer, each once and without `None`.

    >>> members([int | str | None, str])
    (<class 'int'>, <class 'str'>)
    """
    found: list[Any] = []
    for hint in hints:
        found += [member for member in _members(bare(hint)) if member not in found]
    return tuple(found)


def attribute_of(hint: Any, name: str) -> Any:
    """The annotation of an attribute of a value of this member. A method is `MISSING`: it is no value of the record."""
    cls = get_origin(hint) or hint
    if not isinstance(cls, type):
        return Any
    hints = _annotated(hint, cls)
    if name in hints:
        return hints[name]
    found = inspect.getattr_static(cls, name, MISSING)
    if _is_open(hint, cls):
        return Any
    return MISSING if found is MISSING or _is_method(found) else _returned(found)


def is_method(hint: Any, name: str) -> bool:
    """Whether a value of this member has a method of this name."""
    return _is_method(inspect.getattr_static(get_origin(hint) or hint, name, None))


def item_of(hint: Any, key: Any) -> Any:
    """The annotation of an item of a value of this member; the key is `Any` where it is not known."""
    cls = get_origin(hint) or hint
    if not isinstance(cls, type) or (cls is dict and not get_args(hint)) or typing.is_typeddict(cls):
        return Any
    if (mapping := mapping_hints(hint)) is not None:
        return mapping[1]
    if cls in (str, bytes, list, tuple):
        if not (key is Any or isinstance(key, int | slice)):
            return MISSING
        return _element(hint, cls, key)
    if inspect.getattr_static(cls, "__getitem__", MISSING) is not MISSING:
        elements = element_hints(hint, 1)
        return elements[0] if elements and not isinstance(key, slice) else Any
    return Any if _is_open(hint, cls) else MISSING


def fields_of(hint: Any) -> list[str]:
    """The names that might have been meant by one that this member lacks."""
    cls = get_origin(hint) or hint
    named = _annotated(hint, cls)
    others = (n for n in dir(cls) if not n.startswith("_") and not _is_method(inspect.getattr_static(cls, n, None)))
    return list(dict.fromkeys([*named, *others]))


def _members(hint: Any) -> tuple[Any, ...]:
    if is_union(hint):
        return members(get_args(hint))
    if isinstance(hint, TypeVar):
        return members(hint.__constraints__ or (Any if hint.__bound__ is None else hint.__bound__,))
    if get_origin(hint) is Literal:
        return members(map(type, get_args(hint)))
    if hint is None or hint is type(None):
        return ()
    return (Any,) if hint is object else (hint,)


def _annotated(hint: Any, cls: type) -> dict[str, Any]:
    try:
        if issubclass(cls, msgspec.Struct):
            return {field.name: field.type for field in msgspec.structs.fields(hint)}
        return {} if typing.is_typeddict(cls) else typing.get_type_hints(cls)
    except Exception:  # noqa: BLE001  an annotation is an expression, which may raise anything
        return dict.fromkeys(inspect.get_annotations(cls), Any) | dict.fromkeys(
            getattr(cls, "__struct_fields__", ()), Any
        )


def _is_open(hint: Any, cls: type) -> bool:
    """Whether a value of this class may have attributes that the class does not tell of."""
    if hint is dict or typing.is_typeddict(cls) or issubclass(cls, type):
        return True
    if isinstance(getattr(cls, "__pydantic_fields__", None), dict):
        return bool(getattr(cls, "model_config", {}).get("extra") == "allow")
    # A class of the author's own that wraps others, or that answers for any name.
    if inspect.isabstract(cls) or getattr(cls, "_is_protocol", False):
        return True
    if inspect.getattr_static(cls, "__getattr__", MISSING) is not MISSING:
        return True
    if isinstance(inspect.getattr_static(cls, "__getattribute__"), types.FunctionType):
        return True
    return bool(cls.__dictoffset__) and not dataclasses.is_dataclass(cls)


def _is_method(found: object) -> bool:
    return inspect.isroutine(found) or isinstance(found, classmethod | staticmethod)


def _returned(found: object) -> Any:
    if isinstance(found, property) and found.fget is not None:
        try:
            return typing.get_type_hints(found.fget).get("return", Any)
        except Exception:  # noqa: BLE001  an annotation is an expression, which may raise anything
            return Any
    return Any


def _element(hint: Any, cls: type, key: Any) -> Any:
    """The annotation of what a key (an integer, a slice or unknown) finds in a sequence."""
    if cls is str:
        return str
    arguments = get_args(hint)
    fixed = cls is tuple and bool(arguments) and arguments[-1] is not Ellipsis
    if isinstance(key, slice):
        return Any if fixed else hint
    if cls is bytes:
        return int
    if not fixed:
        return arguments[0] if arguments else Any
    if key is Any:
        return typing.Union[arguments]  # noqa: UP007  of as many as there are
    return arguments[key] if -len(arguments) <= key < len(arguments) else MISSING
