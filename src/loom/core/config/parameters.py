"""The arguments that a class can be built with, from its fields or from the annotations of its constructor.

Called by `ConfigContext.arguments`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from loom.core.config.shape import Field, fields_of
from loom.core.model import LoomFrozenStruct

__all__ = ["Parameters", "Unresolvable", "parameters_of"]


class Unresolvable(LoomFrozenStruct):
    """Stands in for an annotation whose names do not exist at run time."""

    annotation: str


class Parameters(LoomFrozenStruct):
    """What a constructor takes."""

    fields: tuple[Field, ...]
    #: Whether a `**kwargs` takes any other name.
    open: bool = False

    def by_key(self) -> dict[str, Field]:
        """The parameters by their name in a configuration."""
        return {field.key: field for field in self.fields}

    def by_name(self) -> dict[str, Field]:
        """The parameters by their name in code."""
        return {field.name: field for field in self.fields}


def parameters_of(target: type[Any]) -> Parameters:
    """The keyword arguments of a class. One without an annotation accepts anything."""
    fields = fields_of(target)
    if fields is not None:
        return Parameters(fields)
    if issubclass(target, tuple) and hasattr(target, "_fields"):
        kinds = typing.get_type_hints(target, include_extras=True)
        defaults: Mapping[str, Any] = target._field_defaults  # type: ignore[attr-defined]
        return Parameters(
            tuple(Field(name, name, kinds.get(name, Any), name not in defaults) for name in target._fields)
        )
    function = _constructor(target)
    if function is None:
        return Parameters(())
    hints = _hints(function)
    taken = []
    open_ended = False
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            required = parameter.default is parameter.empty
            taken.append(Field(parameter.name, parameter.name, hints.get(parameter.name, Any), required))
    return Parameters(tuple(taken), open_ended)


def _constructor(target: Any) -> Any:
    if target.__init__ is not object.__init__:
        return target.__init__
    return target.__new__ if target.__new__ is not object.__new__ else None


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001  an annotation is an expression, which may raise anything
        return {name: _hint(function, name) for name in getattr(function, "__annotations__", {})}


def _hint(function: Any, name: str) -> Any:
    annotation = function.__annotations__[name]

    def alone() -> None: ...

    alone.__annotations__ = {name: annotation}
    try:
        return typing.get_type_hints(alone, globalns=function.__globals__, include_extras=True)[name]
    except Exception:  # noqa: BLE001  as above
        return Unresolvable(str(annotation))
