"""Text where one of a few values is expected: it becomes the member of the enum, or is refused with the values there are.

Every declaration and every settings struct asks here when it is made, so a wrong value never gets further.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

from msgspec.structs import fields, force_setattr

from loom.core.config.keys import nearest
from loom.core.config.shape import allowed_values, bare, is_union
from loom.core.model import LoomFrozenStruct

__all__ = ["Declaration", "choice", "coerce_choices"]

E = TypeVar("E", bound=Enum)


class Declaration(LoomFrozenStruct):
    """A struct whose fields of an enum or a literal also take text, and nothing that is none of their values.

    >>> from loom.core.observability.settings import LogSettings
    >>> LogSettings(format="xml")
    Traceback (most recent call last):
    ValueError: LogSettings(format=…) takes 'auto', 'console' or 'json', not 'xml'
    """

    def __post_init__(self) -> None:
        coerce_choices(self)


def coerce_choices(declared: LoomFrozenStruct) -> None:
    """Turn text in the enum fields of a struct that has just been made into their members.

    Raises `ValueError` for a value that a field of an enum or a literal cannot have.
    """
    for name, field in _choices_of(type(declared)).items():
        found = getattr(declared, name)
        made = _made(field, found, f"{type(declared).__name__}({name}=…)")
        if made is not found:
            force_setattr(declared, name, made)


def choice(kind: type[E], value: object, where: str) -> E:
    """The member of an enum that a value is or names; `where` is the argument, for the message.

    Raises `ValueError` with the values that there are.
    """
    for member in kind:
        if member is value or (isinstance(value, str) and member.value == value):
            return member
    raise _refused(value, [member.value for member in kind], where)


class _Field(LoomFrozenStruct):
    """The type of a field that takes one of a few values."""

    hint: Any
    may_be_none: bool
    #: a tuple of such values
    several: bool


def _made(field: _Field, value: Any, where: str) -> Any:
    if value is None and field.may_be_none:
        return value
    if field.several:
        found = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
        made = tuple(_one(field.hint, item, where) for item in found)
        return value if made == value and all(map(_is, made, value)) else made
    return _one(field.hint, value, where)


def _one(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, type):
        return choice(hint, value, where)
    allowed = get_args(hint)
    if not isinstance(value, str) or value not in allowed:
        raise _refused(value, allowed, where)
    return value


def _is(one: object, other: object) -> bool:
    return one is other


def _refused(value: object, allowed: Iterable[Any], where: str) -> ValueError:
    known = [str(each) for each in allowed]
    *others, last = map(repr, known)
    listed = f"{', '.join(others)} or {last}" if others else last
    close = nearest(value, known) if isinstance(value, str) else None
    meant = f"; did you mean {close!r}?" if close is not None else ""
    return ValueError(f"{where} takes {listed}, not {value!r}{meant}")


@cache
def _choices_of(cls: type[LoomFrozenStruct]) -> Mapping[str, _Field]:
    return dict(_found(cls))


def _found(cls: type[LoomFrozenStruct]) -> Iterator[tuple[str, _Field]]:
    for name, hint in _hints(cls).items():
        arms = get_args(bare(hint)) if is_union(bare(hint)) else (hint,)
        may_be_none = type(None) in arms
        shapes = [bare(arm) for arm in arms if arm is not type(None)]
        if len(shapes) != 1:
            continue
        several = get_origin(shapes[0]) is tuple and get_args(shapes[0])[1:] == (Ellipsis,)
        one = bare(get_args(shapes[0])[0]) if several else shapes[0]
        if (get_origin(one) is Literal and allowed_values(one)) or (isinstance(one, type) and issubclass(one, Enum)):
            yield name, _Field(one, may_be_none, several)


def _hints(cls: type[LoomFrozenStruct]) -> dict[str, Any]:
    """The annotations of the fields; of a class of the author's own that cannot be resolved, those of ours below it."""
    for base in cls.__mro__:
        try:
            return {field.name: field.type for field in fields(typing.cast(type[LoomFrozenStruct], base))}
        except (NameError, TypeError, AttributeError):
            continue
    return {}
