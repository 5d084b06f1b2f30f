"""What a type annotation looks like from the outside: its fields, or its element types.

Used by `conversion.py` and `parameters.py` to walk a value beside its type.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
import typing
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from loom.core.model import LoomFrozenStruct

__all__ = [
    "Field",
    "allowed_values",
    "bare",
    "deeply_bare",
    "element_hints",
    "fields_of",
    "is_union",
    "mapping_hints",
    "show",
    "tag_of",
    "unaliased",
]

_SEQUENCES = frozenset(
    {
        list,
        tuple,
        set,
        frozenset,
        collections.abc.Collection,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Set,
        collections.abc.MutableSet,
    }
)
_MAPPINGS = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})


class Field(LoomFrozenStruct):
    """One named part of a struct, a dataclass, a typed dict or a constructor."""

    #: The name in code.
    name: str
    #: The name in a configuration; differs where a struct renames its fields.
    key: str
    hint: Any
    required: bool


def bare(hint: Any) -> Any:
    """The annotation without `Annotated`, `NewType` and type aliases around it."""
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif unaliased(hint) is not hint:
            hint = unaliased(hint)
        else:
            return hint


def unaliased(hint: Any) -> Any:
    """The annotation that a `type X = …` of Python 3.12 names; any other as it is."""
    while type(hint).__name__ == "TypeAliasType":
        hint = hint.__value__
    return hint


def deeply_bare(hint: Any) -> Any:
    """As `bare`, for the annotations inside this one too.

    >>> deeply_bare(dict[str, Annotated[int, "minutes"]])
    dict[str, int]
    """
    hint = bare(hint)
    parts = get_args(hint)
    if not parts or get_origin(hint) in (Literal, collections.abc.Callable):
        return hint
    made = tuple(map(deeply_bare, parts))
    if all(one is other for one, other in zip(made, parts, strict=True)):
        return hint
    if is_union(hint):
        return Union[made]  # noqa: UP007  of as many as there are
    return hint.copy_with(made) if hasattr(hint, "copy_with") else get_origin(hint)[made]


def is_union(hint: Any) -> bool:
    """Whether a bare annotation offers alternatives."""
    return get_origin(hint) in (Union, types.UnionType)


def fields_of(hint: Any) -> tuple[Field, ...] | None:
    """The fields that a mapping for this bare annotation may hold, None if it has no named fields."""
    cls = get_origin(hint) or hint
    if not isinstance(cls, type):
        return None
    if issubclass(cls, msgspec.Struct):
        if cls.__struct_config__.array_like:
            return None
        return tuple(Field(f.name, f.encode_name, f.type, f.required) for f in msgspec.structs.fields(hint))
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return tuple(
            Field(f.name, f.name, hints[f.name], _has_no_default(f)) for f in dataclasses.fields(cls) if f.init
        )
    if typing.is_typeddict(cls):
        required: frozenset[str] = cls.__required_keys__  # type: ignore[attr-defined]
        return tuple(Field(name, name, kind, name in required) for name, kind in typing.get_type_hints(cls).items())
    return None


def tag_of(hint: Any) -> tuple[str, Any] | None:
    """The tag field of a tagged struct and its value, None if it has none."""
    cls = get_origin(hint) or hint
    if isinstance(cls, type) and issubclass(cls, msgspec.Struct):
        config = cls.__struct_config__
        if config.tag_field is not None:
            return config.tag_field, config.tag
    return None


def mapping_hints(hint: Any) -> tuple[Any, Any] | None:
    """The key and value annotations of a bare mapping annotation, None when it is none or leaves them open."""
    arguments = get_args(hint)
    return (arguments[0], arguments[1]) if get_origin(hint) in _MAPPINGS and len(arguments) == 2 else None


def element_hints(hint: Any, length: int) -> list[Any] | None:
    """One annotation for each of `length` elements, None when the bare annotation is no sequence of that length."""
    arguments = get_args(hint)
    if get_origin(hint) not in _SEQUENCES or not arguments:
        return None
    if get_origin(hint) is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return list(arguments) if len(arguments) == length else None
    return [arguments[0]] * length


def allowed_values(hint: Any) -> tuple[Any, ...]:
    """The values that an enumeration or a literal admits, empty for anything else."""
    hint = bare(hint)
    if is_union(hint):
        return tuple(value for arm in get_args(hint) for value in allowed_values(arm))
    if get_origin(hint) is Literal:
        return get_args(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return tuple(member.value for member in hint)
    tag = tag_of(hint)
    return (tag[1],) if tag is not None else ()


def show(hint: Any) -> str:
    """An annotation as a reader would write it."""
    hint = bare(hint)
    if is_union(hint):
        return " | ".join(show(arm) for arm in get_args(hint))
    if hint is type(None):
        return "null"
    if isinstance(hint, type) and get_origin(hint) is None:
        return hint.__name__
    if isinstance(get_origin(hint), type) and get_origin(hint) is not collections.abc.Callable:
        parts = ", ".join("…" if part is Ellipsis else show(part) for part in get_args(hint))
        return f"{get_origin(hint).__name__}[{parts}]"
    return str(hint).replace("typing.", "").replace("collections.abc.", "")


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
