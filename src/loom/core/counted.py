"""A count with its noun, for messages."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, noun: str) -> str:
    """A number and what is counted, in the singular where there is one.

    >>> counted(1, "record"), counted(1200, "record"), counted(0, "dead letter")
    ('1 record', '1,200 records', '0 dead letters')

    Args:
        count: how many.
        noun: what, in the singular; its plural takes an s.
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
