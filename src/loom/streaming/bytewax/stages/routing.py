"""Branches as closures. Hot path: one dict look-up per record; a branch not taken costs nothing."""

from __future__ import annotations

from typing import Any

from loom.streaming.bytewax.stages.entry import Entry
from loom.streaming.bytewax.stages.failures import Fail, NoBranchError
from loom.streaming.compiler.plan import CompiledFork
from loom.streaming.message import Message, MessageMeta

__all__ = ["build_fork"]


def build_fork(
    fork: CompiledFork, branches: dict[Any, Entry], default: Entry | None, fail: Fail, lazy_message: Any
) -> Entry:
    """One branch takes each record: the one whose key the selector names, else the default."""
    select = fork.selector
    records = {key: entry.record for key, entry in branches.items()}
    tombstones = {key: entry.tombstone for key, entry in branches.items()}

    def nowhere(key: Any, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        fail(NoBranchError(f"no branch for {key!r} and no default"), payload, origin, meta)

    def by_payload(takes: dict[Any, Any], otherwise: Any) -> Any:
        def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
            try:
                key = select(payload)
                take = takes.get(key, otherwise)
            except Exception as error:
                fail(error, payload, origin, meta)
                return
            if take is None:
                nowhere(key, payload, origin, meta)
            else:
                take(payload, origin, meta)

        return run

    def by_message(takes: dict[Any, Any], otherwise: Any) -> Any:
        def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
            message = lazy_message(payload, origin) if meta is None else Message(payload, meta)
            try:
                key = select(message)
                take = takes.get(key, otherwise)
            except Exception as error:
                fail(error, payload, origin, meta)
                return
            if take is None:
                nowhere(key, payload, origin, meta)
            else:
                take(payload, origin, meta)

        return run

    build = by_message if fork.selects_on == "message" else by_payload
    run = build(records, default.record if default else None)
    if fork.takes_tombstones:
        return Entry(run, build(tombstones, default.tombstone if default else None))
    if default is not None:
        return Entry(run, default.tombstone)

    def no_branch(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        reason = "a tombstone, which the selector does not name among its types, and no default"
        fail(NoBranchError(reason), payload, origin, meta)

    return Entry(run, no_branch)
