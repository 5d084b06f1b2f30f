"""The limit of a replay: how often a record may have failed and still be written again by a flow that reads dead letters."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from loom.streaming.headers import Headers
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.kafka.record_headers import ERROR_COUNT, rewritten, whole_number
from loom.streaming.message import MessageMeta
from loom.streaming.runtime.stages.failures import Fail
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput, Receive, node_input

__all__ = ["ReplayLimitError", "limited"]


class ReplayLimitError(Exception):
    """A record has failed more often than `replay_limit` allows, so it is not written again."""


def limited(after: NodeInput, limit: int, view: RecordAccessor, fail: Fail, above: Ancestors) -> NodeInput:
    """The entry of an output of a flow that reads dead letters.

    The count stays with the record, also if a step has made a message of its own: without it the next failure
    would be the first again.
    """

    def in_front_of(take: Receive) -> Receive:
        def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
            told = next((value for name, value in view.pairs(origin) if name == ERROR_COUNT), None)
            count = whole_number(told or b"") or 0
            if count > limit:
                fail(
                    ReplayLimitError(
                        f"the record has failed {count} times ({ERROR_COUNT}), and replay_limit of the source is {limit}: "
                        "it is not written again"
                    ),
                    payload,
                    origin,
                    meta,
                )
                return
            if meta is not None and told is not None and meta.headers.get(ERROR_COUNT) != told:
                pairs = rewritten(Headers.of(meta.headers).pairs, {ERROR_COUNT: told})
                meta = replace(meta, headers=Headers(pairs))
            take(payload, origin, meta)

        return run

    return node_input(in_front_of(after.record), in_front_of(after.tombstone), above)
