"""Puts together what a constructor is called with: a section, and on top of it the overrides of a declaration.

Called by `ConfigContext.arguments`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom.core.config.conversion import Conversion, unknown_key
from loom.core.config.keys import KeyPath, read_as
from loom.core.config.parameters import Parameters, Unresolvable

__all__ = ["ArgumentGathering"]


class ArgumentGathering:
    """The arguments of one constructor while they are gathered; what is wrong collects in `conversion.problems`.

    Args:
        target: the class to be built.
        parameters: what it takes.
        path: where its section is.
        conversion: checks and converts each value.
    """

    def __init__(self, target: type[Any], parameters: Parameters, path: KeyPath, conversion: Conversion) -> None:
        self.values: dict[str, Any] = {}
        self.conversion = conversion
        self._target = target.__name__
        self._parameters = parameters
        self._path = path

    def take_section(self, section: Mapping[Any, Any]) -> None:
        """Add what the configuration says."""
        known = self._parameters.by_key()
        for key, value in section.items():
            field = known.get(str(key))
            if field is None:
                self._take_unknown(str(key), value, read_as(key))
            elif isinstance(field.hint, Unresolvable):
                message = f"the annotation `{field.hint.annotation}` of this argument does not exist at run time"
                self.conversion.add((*self._path, field.key), message, remedy="import its names unconditionally")
                self.values[field.name] = value
            else:
                self.values[field.name] = self.conversion.convert(value, field.hint, (*self._path, field.key))

    def take_overrides(self, overrides: Mapping[str, Any]) -> None:
        """Add what the declaration itself says."""
        known = self._parameters.by_name()
        for name, value in overrides.items():
            field = known.get(name)
            if field is None:
                self._take_unknown(name, value)
            elif isinstance(field.hint, Unresolvable):
                self.values[name] = value
            else:
                self.values[name] = self.conversion.convert(value, field.hint, (*self._path, field.key))

    def check_complete(self) -> None:
        """Note every required argument that is missing."""
        for field in self._parameters.fields:
            if field.required and field.name not in self.values:
                message = f"required argument of `{self._target}` is missing"
                self.conversion.add((*self._path, field.key), message)

    def _take_unknown(self, name: str, value: Any, remedy: str | None = None) -> None:
        if self._parameters.open:
            self.values[name] = value
            return
        message = f"`{self._target}` has no such argument"
        problem = unknown_key(self.conversion.file, (*self._path, name), self._parameters.by_key(), message, remedy)
        self.conversion.problems.append(problem)
