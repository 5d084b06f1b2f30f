"""What user code has returned: a result of exactly a declared payload class goes straight on, anything else is looked at here.

That is `None`, a whole `Message`, a tombstone, or an instance of a subclass. Hot path only for the class look-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from loom.streaming.bytewax.stages.entry import Entry
from loom.streaming.bytewax.stages.failures import Fail, UndeclaredNoneError
from loom.streaming.compiler.plan import PayloadTypes
from loom.streaming.message import TOMBSTONE, Message, MessageMeta

__all__ = ["Odd", "ResultParts", "look_at"]

#: (result, payload the step was given, origin, meta)
Odd = Callable[[Any, Any, Any, MessageMeta | None], None]


class ResultParts(NamedTuple):
    """How results of one node are told apart."""

    #: the classes that need no second look; empty where the author left the type open
    plain: frozenset[type]
    odd: Odd


def look_at(
    returns: PayloadTypes,
    after: Entry,
    fail: Fail,
    drops: Counter[str] | None,
    step_id: str,
    name: str | None = None,
) -> ResultParts:
    """The parts for a node; `drops` counts results of `None`, where the node may drop records."""
    record, tombstone = after.record, after.tombstone
    name = name or step_id

    def look(result: Any, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        if isinstance(result, Message):
            # The message replaces payload, key and headers. Where it was read stays with the origin.
            result, meta = result.payload, result.meta
        if result is None:
            if drops is not None:
                drops[step_id] += 1
            else:
                reason = (
                    f"{name} returned None, which its return type does not say; write `-> … | None` to drop records"
                )
                fail(UndeclaredNoneError(reason), payload, origin, meta)
        elif result is TOMBSTONE:
            tombstone(result, origin, meta)
        else:
            record(result, origin, meta)

    return ResultParts(_plain_classes(returns), look)


def _plain_classes(returns: PayloadTypes) -> frozenset[type]:
    if not returns.known:
        return frozenset()
    classes = (getattr(t, "__origin__", t) for t in returns.types)
    return frozenset(c for c in classes if isinstance(c, type) and c not in (object, Message, type(TOMBSTONE)))
