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
    """Base of every error raised by Loom itself. All of them can be pickled, whatever arguments their constructors take.

    >>> import pickle
    >>> pickle.loads(pickle.dumps(LoomError("no such topic")))
    LoomError('no such topic')
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), vars(self)


def _restored(kind: type[LoomError], args: tuple[Any, ...]) -> LoomError:
    """An error as it was made, without its constructor, which may take other arguments than the text it passes on."""
    return kind.__new__(kind, *args)


class NotSupportedYetError(LoomError):
    """A declared name or option whose feature is not built yet. It is refused, never ignored.

    >>> raise NotSupportedYetError("observability.otel: not supported yet")
    Traceback (most recent call last):
    loom.core.errors.NotSupportedYetError: observability.otel: not supported yet
    """


class DomainError(LoomError):
    """A record that breaks a rule of the domain. Raised by a step, it makes the record a `BUSINESS` error.

    Derive your own from it; any constructor will do.

    >>> class OutOfStock(DomainError):
    ...     def __init__(self, sku: str) -> None:
    ...         super().__init__(f"{sku} is out of stock")
    >>> str(OutOfStock("a1"))
    'a1 is out of stock'
    """


class NotFound(DomainError):
    """Something that the record refers to does not exist.

    >>> raise NotFound("no customer 7")
    Traceback (most recent call last):
    loom.core.errors.NotFound: no customer 7
    """


class Forbidden(DomainError):
    """The record asks for something that is not allowed.

    >>> raise Forbidden("customer 7 may not order on account")
    Traceback (most recent call last):
    loom.core.errors.Forbidden: customer 7 may not order on account
    """


class Conflict(DomainError):
    """The record contradicts what is already known.

    >>> raise Conflict("order 7 is already cancelled")
    Traceback (most recent call last):
    loom.core.errors.Conflict: order 7 is already cancelled
    """


class RuleViolation(DomainError):
    """The record breaks a business rule.

    >>> raise RuleViolation("quantity must be at least 1")
    Traceback (most recent call last):
    loom.core.errors.RuleViolation: quantity must be at least 1
    """
