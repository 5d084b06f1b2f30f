"""A key policy in front of an output: which key, and so which partition, a message gets. Hot path where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.kafka.writable import writable_key
from loom.streaming.message import Message, MessageMeta
from loom.streaming.nodes.boundary import PartitionGuarantee, PartitionPolicy
from loom.streaming.runtime.stages.failures import Fail
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput, Receive, node_input

__all__ = ["NoKeyError", "keyed"]


class NoKeyError(Exception):
    """A policy that promises entities a partition of their own has named no key."""


def keyed(
    policy: PartitionPolicy,
    after: NodeInput,
    message: Callable[[Any, Any], Message[Any]],
    view: RecordAccessor,
    misplaced: Fail,
    above: Ancestors,
) -> NodeInput:
    """The entry of an output whose messages get their key by a policy."""
    choose, repartitions = policy.strategy.partition_key, policy.allow_repartition
    stable = policy.guarantee is PartitionGuarantee.ENTITY_STABLE
    falls_back = policy.guarantee is PartitionGuarantee.BEST_EFFORT

    def in_front_of(take: Receive) -> Receive:
        def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
            incoming = view.key(origin) if meta is None else meta.key
            if incoming is not None and not repartitions:
                take(payload, origin, meta)
                return
            try:
                key = writable_key(choose(message(payload, origin) if meta is None else Message(payload, meta)))
                if key is None:
                    if stable:
                        raise NoKeyError(
                            f"{type(policy.strategy).__qualname__} names no key, and ENTITY_STABLE needs one"
                        )
                    key = writable_key(incoming) if falls_back else None
                if key != incoming:
                    meta = replace(view.meta(origin) if meta is None else meta, key=key)
            except BaseException as error:
                misplaced(error, payload, origin, meta)
                return
            take(payload, origin, meta)

        return run

    return node_input(in_front_of(after.record), in_front_of(after.tombstone), above)
