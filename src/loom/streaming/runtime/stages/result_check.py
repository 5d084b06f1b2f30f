"""What user code has returned: a result of exactly a declared payload class continues at once, anything else is checked here.

That is `None`, a whole `Message`, a tombstone, an instance of a subclass, or something that was not declared. Hot path only
for the class look-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from loom.streaming.compiler.model import PayloadTypes
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.message import TOMBSTONE, Message, MessageMeta
from loom.streaming.runtime.stages.declared import classes_of
from loom.streaming.runtime.stages.failures import Fail, UndeclaredNoneError
from loom.streaming.runtime.stages.node_input import NodeInput

__all__ = [
    "NotSeveralError",
    "ResultParts",
    "UndeclaredResultError",
    "Unusual",
    "WrongCountError",
    "classify_result",
    "entries_of",
    "several",
]

#: (result, payload the step was given, origin, meta)
Unusual = Callable[[Any, Any, Any, MessageMeta | None], None]

#: what can be iterated and is one value all the same
_ONE_VALUE = (str, bytes, bytearray, memoryview, Mapping)


class UndeclaredResultError(TypeError):
    """A step returned something of another class than it declares."""


class NotSeveralError(TypeError):
    """A step that returns several results returned one value that happens to be iterable."""


class WrongCountError(ValueError):
    """A step that takes a batch returned another number of entries than it was given messages."""


class ResultParts(NamedTuple):
    """How results of one node are distinguished."""

    #: the classes that need no further check; empty if the author left the type open
    plain: frozenset[type]
    odd: Unusual


def classify_result(
    returns: PayloadTypes,
    after: NodeInput,
    fail: Fail,
    view: RecordAccessor,
    drops: Counter[str] | None,
    step_id: str,
    name: str | None = None,
) -> ResultParts:
    """The parts for a node; `drops` counts results of `None`, where the node may drop records."""
    record, tombstone = after.record, after.tombstone
    name = name or step_id
    declared = classes_of(returns)
    # Not known is known to hold anything.
    classes = declared if declared is not None else (object,)
    place_of = view.place

    def look(result: Any, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        made = meta
        try:
            if isinstance(result, Message):
                # The message replaces payload, key and headers. Where it was read stays with the origin.
                result, made = result.payload, _placed(result.meta, place_of(origin))
            if result is None and drops is None:
                raise UndeclaredNoneError(
                    f"{name} returned None, which its return type does not say; write `-> … | None` to drop records"
                )
            if result is not None and result is not TOMBSTONE and not isinstance(result, classes):
                raise UndeclaredResultError(
                    f"{name} returned {_named(type(result))}, and declares {returns}. Return what is declared, or "
                    "change the annotation"
                )
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        if result is None:
            if drops is not None:
                drops[step_id] += 1
        elif result is TOMBSTONE:
            tombstone(result, origin, made)
        else:
            record(result, origin, made)

    return ResultParts(_plain(returns, declared), look)


def several(found: Any, name: str) -> Iterable[Any]:
    """What a step has returned for several results. Raises `NotSeveralError` for text, bytes and mappings.

    Iterating those would make records of characters, numbers and keys.
    """
    if found.__class__ is not list and (isinstance(found, _ONE_VALUE) or _has_fields(found)):
        raise NotSeveralError(
            f"{name} returned {_named(type(found))} where it returns several results. Return a list of them"
        )
    return found


def _has_fields(found: Any) -> bool:
    """Whether it is one value whose fields can be iterated: a named tuple, a pydantic model."""
    return (isinstance(found, tuple) and hasattr(found, "_fields")) or hasattr(type(found), "__pydantic_fields__")


def entries_of(found: Any, name: str) -> Any:
    """What a step has returned for a batch: one entry for each message, in their order. Raises `NotSeveralError`."""
    if isinstance(found, (set, frozenset)):
        raise NotSeveralError(
            f"{name} returned {_named(type(found))}, which has no order, for the messages of a batch. Return a list"
        )
    return several(found, name)


def _placed(meta: MessageMeta, place: tuple[str | None, int | None, int | None]) -> MessageMeta:
    """Metadata that says where its record was read, whatever a step has made of it."""
    topic, partition, offset = place
    if meta.offset == offset and meta.partition == partition and meta.topic == topic:
        return meta
    return replace(meta, topic=topic, partition=partition, offset=offset)


def _named(cls: type) -> str:
    article = "an" if cls.__qualname__[:1] in "AEIOUaeiou" else "a"
    return f"{article} {cls.__qualname__}"


def _plain(returns: PayloadTypes, declared: tuple[type, ...] | None) -> frozenset[type]:
    if not returns.known:
        return frozenset()
    classes = declared if declared is not None else returns.types
    return frozenset(c for c in classes if isinstance(c, type) and c not in (object, Message, type(TOMBSTONE)))
