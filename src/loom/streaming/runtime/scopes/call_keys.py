"""The keys of the records of a call, where the calls of a key follow one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from loom.streaming.kafka.record_headers import key_bytes
from loom.streaming.runtime.stages.node_input import Item

__all__ = ["keys_of"]


def keys_of(items: Sequence[Item], key: Callable[[Any], bytes | None]) -> tuple[Any, ...]:
    """Each key of these records once, in their order; records without one have none.

    `key` returns that of an origin.
    """
    if len(items) == 1:
        _, origin, meta, _ = items[0]
        has = key(origin) if meta is None else key_bytes(meta.key)
        return (has,) if has is not None else ()
    found = dict[Any, None]()
    for _, origin, meta, _ in items:
        has = key(origin) if meta is None else key_bytes(meta.key)
        if has is not None:
            found[has] = None
    return tuple(found)
