"""The settings of a producer or consumer that its wire format reads."""

from __future__ import annotations

from typing import Any, Literal

from loom.core.choices import Declaration
from loom.core.config.field_error import FieldError
from loom.streaming.formats.registry import UnknownFormatError, as_wire_format, format_names

__all__ = ["JsonSettings", "checked_format"]


class JsonSettings(Declaration):
    """How a producer writes JSON.

    >>> JsonSettings("number").decimal
    'number'

    Args:
        decimal: whether a `Decimal` is written as a string (`"1.10"`) or as a number (`1.10`).
    """

    decimal: Literal["string", "number"] = "string"


class _UnknownFormatField(FieldError):
    """A format that no package offers. In a config it is reported without the value, which may be a misplaced secret."""

    def __init__(self, said: str) -> None:
        allowed = ", ".join(f"`{name}`" for name in format_names())
        super().__init__("format", "not one of the allowed values", f"one of {allowed}")
        self._said = said

    def __str__(self) -> str:
        return self._said

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._said,), vars(self)


def checked_format(name: str, owner: type) -> str:
    """The member of `WireFormat` that a name has, or the name of an installed format. Raises `FieldError` for any other."""
    try:
        return as_wire_format(name, f"{owner.__name__}(format=…)")
    except UnknownFormatError as error:
        raise _UnknownFormatField(str(error)) from None
