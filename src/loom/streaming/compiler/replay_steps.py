"""Which step a replayed record may enter, in place of the first one.

Asked by `loom dlq replay --into-step` before it writes anything, and by the stage for each record that names a step.
"""

from __future__ import annotations

from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import CompiledNode, Reads, walk_nodes
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import LoomStreamingError
from loom.streaming.nodes.shape import StreamShape

__all__ = ["ReplayEntry", "ReplayRefusedError", "replay_entry"]


class ReplayRefusedError(LoomStreamingError):
    """A record cannot enter the flow at the step that it names."""


class ReplayEntry(LoomFrozenStruct):
    """A step that records may enter, and what they then hold."""

    node: CompiledNode
    payload: Any
    #: the step receives what the source reads, so the record as it was read will do
    takes_source: bool


def replay_entry(plan: CompiledPlan, step_id: str) -> ReplayEntry:
    """The way in.

    Raises `ReplayRefusedError` for a step that the flow no longer has, or that records cannot enter one by one.
    """
    nodes = {node.step_id: node for node in walk_nodes(plan.nodes)}
    node = nodes.get(step_id)  # type: ignore[call-overload]
    if node is None:
        raise ReplayRefusedError(f"the flow {plan.name!r} has no step {step_id!r} (any more)")
    why = _why_not(plan, node)
    if why is not None:
        raise ReplayRefusedError(f"no record can enter {step_id!r}: {why}")
    (payload,) = node.accepts.types
    return ReplayEntry(node, payload, _untouched(plan, node) and plan.source.payloads == (payload,))


def _why_not(plan: CompiledPlan, node: CompiledNode) -> str | None:
    if plan.source.reads is not Reads.PAYLOAD or plan.source.wire_format == "bytes":
        return "its source does not read records of one payload type that is decoded"
    if len(node.path) % 2 == 0:
        return "it is inside a scope, which opens the resources for its first step"
    if node.in_shape not in (StreamShape.RECORD, StreamShape.MANY) or node.gathers:
        return "it takes several records at once"
    if not node.accepts.known or len(node.accepts.types) != 1:
        return f"it takes {node.accepts}, and a record holds one type that is known"
    return None


def _untouched(plan: CompiledPlan, node: CompiledNode) -> bool:
    """Whether nothing before the node can have changed the payload: it is the first, of a branch of the first, and so on."""
    by_path = {one.path: one for one in walk_nodes(plan.nodes)}
    above = [by_path[node.path[:length]] for length in range(1, len(node.path), 2)]
    expands = any(one.multiplies and any(branch.key is not None for branch in one.branches) for one in above)
    return not expands and not any(node.path[::2])
