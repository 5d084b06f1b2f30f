"""Which field of a payload type keeps it from being read, and what to write there.

Asked when msgspec has refused the type as a whole, which names a reason and no place.
"""

from __future__ import annotations

import sys
import typing
from typing import Any, get_args, get_origin

import msgspec

__all__ = ["find_unreadable"]


def find_unreadable(payload: Any, error: Exception) -> str:
    """The remedy for a type that msgspec cannot read because of `error`."""
    place, cause = _field(get_origin(payload) or payload, set()) or (None, error)
    what = f"the field {place}" if place is not None else "its fields"
    if isinstance(cause, NameError):
        name = f" {cause.name!r}" if cause.name else ""
        return (
            f"define or import{name}, which {what} names, at the top of the module: outside of functions and of "
            "`if TYPE_CHECKING:`"
        )
    if "multiple Struct types" in str(cause):
        return (
            f"give each struct that {what} may hold a tag, class …(LoomFrozenStruct, tag=True), or one of them a field"
        )
    return f"let {what} hold one type that its JSON identifies, or write Any there and check it in a step"


def _field(cls: Any, seen: set[Any]) -> tuple[str, Exception] | None:
    """The innermost field that cannot be read, and why."""
    if cls in seen or not _has_fields(cls):
        return None
    seen.add(cls)
    for base in cls.__mro__:
        for name, annotation in vars(base).get("__annotations__", {}).items():
            if name not in getattr(cls, "__struct_fields__", (name,)):
                continue
            place = f"{base.__qualname__}.{name}"
            try:
                hint = _resolved(base, annotation)
            except Exception as error:  # noqa: BLE001  an annotation is an expression, which may raise anything
                return place, error
            try:
                msgspec.json.Decoder(hint)
            except (NameError, TypeError) as error:
                return _within(hint, seen) or (place, error)
    return None


def _has_fields(cls: Any) -> bool:
    """Whether a class is read by its annotated fields."""
    if not isinstance(cls, type):
        return False
    return (
        issubclass(cls, msgspec.Struct)
        or typing.is_typeddict(cls)
        or any(hasattr(cls, mark) for mark in ("__dataclass_fields__", "__attrs_attrs__", "_fields"))
    )


def _within(hint: Any, seen: set[Any]) -> tuple[str, Exception] | None:
    """The field at fault in the structs that an annotation names."""
    waiting = [hint]
    while waiting:
        part = waiting.pop()
        found = _field(get_origin(part) or part, seen)
        if found is not None:
            return found
        waiting.extend(get_args(part))
    return None


def _resolved(owner: type, annotation: Any) -> Any:
    def alone() -> None: ...

    alone.__annotations__ = {"field": annotation}
    module = sys.modules.get(owner.__module__)
    return typing.get_type_hints(alone, vars(module) if module else {}, dict(vars(owner)), include_extras=True)["field"]
