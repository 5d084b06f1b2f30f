"""What a struct of settings raises about one of its fields, so that the problem is reported at the key of that field."""

from __future__ import annotations

__all__ = ["MOST_MS", "FieldError", "require_number", "require_text"]

#: the longest time in milliseconds that every client and every wait takes: 24 days
MOST_MS = 2**31 - 1
_EMPTY = "if the value comes from the environment, the variable is set and empty"


class FieldError(ValueError):
    """One field of a struct does not fit, though its type does.

    >>> str(FieldError("batch_size", "must be at least 1"))
    'batch_size must be at least 1'
    """

    def __init__(self, field: str, message: str, remedy: str | None = None) -> None:
        self.field = field
        self.message = message
        self.remedy = remedy
        super().__init__(field, message, remedy)

    def __str__(self) -> str:
        return f"{self.field} {self.message}"


def require_text(field: str, *texts: str | None) -> None:
    """Raise `FieldError` for a text that is empty or blank; `None` is left alone."""
    if any(text is not None and not text.strip() for text in texts):
        raise FieldError(field, "must not be empty", _EMPTY)


def require_number(field: str, number: int | None, least: int, most: int) -> None:
    """Raise `FieldError` for a number out of these bounds; `None` is left alone.

    >>> require_number("batch_size", 0, 1, 1_000_000)
    Traceback (most recent call last):
    loom.core.config.field_error.FieldError: batch_size must be at least 1
    """
    if number is not None and number < least:
        raise FieldError(field, f"must be at least {least}")
    if number is not None and number > most:
        raise FieldError(field, f"must be at most {most:,}")
