"""The roots of every error that Loom raises, and the domain errors that steps may raise.

A `DomainError` raised inside a step is the record's own fault (`BUSINESS`), not the program's (`TASK`).
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "ENDS_RUN",
    "Conflict",
    "DomainError",
    "Forbidden",
    "LoomError",
    "NotFound",
    "NotSupportedYetError",
    "RuleViolation",
]


#: What user code raises to end a program. Anything else that it raises, panics of native libraries and cancellations
#: included, is one record's failure.
ENDS_RUN: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)


class LoomError(Exception):
    """Base of every error raised by Loom itself. All of them cross process boundaries, whatever their constructors take."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), vars(self)


def _restored(kind: type[LoomError], args: tuple[Any, ...]) -> LoomError:
    """An error as it was made, without its constructor, which may take other arguments than the text it passes on."""
    return kind.__new__(kind, *args)


class NotSupportedYetError(LoomError):
    """A declared name or option whose feature is not built yet; it is refused rather than ignored."""


class DomainError(LoomError):
    """A record that breaks a rule of the domain. Raised by a step, it makes a `BUSINESS` error of that record."""


class NotFound(DomainError):
    """Something the record refers to does not exist."""


class Forbidden(DomainError):
    """The record asks for something that is not allowed."""


class Conflict(DomainError):
    """The record contradicts what is already known."""


class RuleViolation(DomainError):
    """The record breaks a business rule."""
