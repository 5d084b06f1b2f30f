"""The way into a built node: one callable for payloads, one for tombstones, so that neither asks about the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from loom.streaming.message import MessageMeta

__all__ = ["Entry", "Take"]

#: (payload, origin, meta). The origin is the record as its source handed it over; meta is `None` until a step or the
#: wire format gives the record one that is not simply the origin's.
Take: TypeAlias = Callable[[Any, Any, MessageMeta | None], None]


class Entry(NamedTuple):
    """Where a record goes next."""

    record: Take
    tombstone: Take
