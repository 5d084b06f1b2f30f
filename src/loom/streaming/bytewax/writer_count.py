"""How many processes write for a group, kept in the metadata of its committed positions.

Read at an exactly-once start, so that writers of an earlier layout are fenced though nobody starts them any more.
"""

from __future__ import annotations

from collections.abc import Iterable

from loom.core.logger import get_logger

__all__ = ["MOST_WRITERS", "marked", "stored_writers"]

_MARK = "loom-writers="
#: the bound of a layout's processes; a larger number was not written by us
MOST_WRITERS = 64

_log = get_logger(__name__)


def marked(writers: int) -> str:
    """The metadata that says how many write.

    >>> marked(2)
    'loom-writers=2'
    """
    return f"{_MARK}{writers}"


def stored_writers(metadata: Iterable[str]) -> int:
    """The largest number of writers that any of these positions names; 0 where none names one.

    What somebody else wrote, or nobody can read, says nothing.

    >>> stored_writers(["", "loom-writers=3", "loom-writers=1", "a note"])
    3
    """
    return max((_writers(text) for text in metadata), default=0)


def _writers(text: str) -> int:
    if not text.startswith(_MARK):
        return 0
    number = text.removeprefix(_MARK)
    if number.isascii() and number.isdigit() and 1 <= int(number) <= MOST_WRITERS:
        return int(number)
    _log.warning("the number of writers beside a position cannot be read; only our own writer is fenced", found=text)
    return 0
