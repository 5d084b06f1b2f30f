"""Nodes that hand one record to several places: broadcasts, and expansions that need no step class. Hot path."""

from __future__ import annotations

from typing import Any, TypeAlias

from loom.core.shown import shown
from loom.streaming.compiler.model import PayloadTypes
from loom.streaming.compiler.nodes.broadcast import CompiledBroadcast
from loom.streaming.compiler.nodes.expand import CompiledExpandRoutes, CompiledExplode
from loom.streaming.errors import ErrorKind
from loom.streaming.message import MessageMeta
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.failures import NoBranchError
from loom.streaming.runtime.stages.node_input import NO_CHILD, Ancestors, NodeInput, Receive
from loom.streaming.runtime.stages.result_check import Unusual, classify_result, several

__all__ = ["build_broadcast", "build_expand_routes", "build_explode"]

#: into a branch: the classes that need no second look, where those go, and where any other goes
Way: TypeAlias = tuple[frozenset[type], Receive, Unusual]


def build_broadcast(
    build: StageBuilder, node: CompiledBroadcast, after: NodeInput | None, above: Ancestors
) -> NodeInput:
    """Every branch takes every record, one after the other."""
    # The branch is part of the order of results, as a child of an expansion is; errors name it by their step id.
    cell = build.cell(node.path)
    below = above.below(cell, told=False)
    entries = build.branches(node.routes, None, [below] * len(node.routes))
    records = [(number, entry.record) for number, entry in enumerate(entries)]
    tombstones = [(number, entry.tombstone) for number, entry in enumerate(entries)]

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        for number, take in records:
            cell.at = number
            take(payload, origin, meta)

    def pass_tombstone(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        for number, take in tombstones:
            cell.at = number
            take(payload, origin, meta)

    return build.entry(run, pass_tombstone, above)


def build_explode(build: StageBuilder, node: CompiledExplode, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """A payload becomes many; one that is no payload (`None`) is an error of its own."""
    assert after is not None
    cell, explode, name = build.cell(node.path), node.exploder.call, node.step_id
    fail = build.fail(node.step_id, node.path, above)
    parts = classify_result(
        node.returns, after, build.fail(node.step_id, node.path, above.below(cell)), build.view, None, node.step_id
    )
    plain, straight, odd = parts.plain, after.record, parts.odd

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        try:
            # Taken whole inside the boundary: an expansion that raises part-way emits nothing.
            results = list(several(explode(payload), name))
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        for index, result in enumerate(results):
            cell.at = index
            if type(result) in plain:
                straight(result, origin, meta)
            else:
                odd(result, payload, origin, meta)

    def pass_by(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        cell.at = NO_CHILD
        after.tombstone(payload, origin, meta)

    return build.entry(run, run if node.takes_tombstones else pass_by, above)


def build_expand_routes(
    build: StageBuilder, node: CompiledExpandRoutes, after: NodeInput | None, above: Ancestors
) -> NodeInput:
    """Payloads of several types, each to the branch of its type."""
    cell = build.cell(node.path)
    below = above.below(cell)
    fail = build.fail(node.step_id, node.path, above)
    one_of_many = build.fail(node.step_id, node.path, below)
    unrouted = build.fail(node.step_id, node.path, below, kind=ErrorKind.ROUTING)
    expand, name = node.expander.expand, node.step_id
    entries = build.branches(node.branches, None, [below] * len(node.branches))
    ways: dict[Any, Way] = {}
    for branch, entry in zip(node.routes, entries, strict=False):
        parts = classify_result(PayloadTypes((branch.key,)), entry, one_of_many, build.view, None, node.step_id)
        ways[branch.key] = (parts.plain, entry.record, parts.odd)
    default = entries[-1] if node.default is not None else None
    otherwise: Way | None = None
    if default is not None:
        parts = classify_result(PayloadTypes((), known=False), default, one_of_many, build.view, None, node.step_id)
        otherwise = (parts.plain, default.record, parts.odd)

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        try:
            groups = [
                (ways.get(kind, otherwise), kind, list(several(found, name))) for kind, found in expand(payload).items()
            ]
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        index = 0
        for way, kind, found in groups:
            for child in found:
                cell.at = index
                index += 1
                if way is None:
                    named = kind.__qualname__ if isinstance(kind, type) else shown(kind)
                    unrouted(NoBranchError(f"no branch for the type {named} and no default"), child, origin, meta)
                    continue
                plain, straight, odd = way
                if type(child) in plain:
                    straight(child, origin, meta)
                else:
                    odd(child, payload, origin, meta)

    def pass_by(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        cell.at = NO_CHILD
        if default is not None:
            default.tombstone(payload, origin, meta)
        else:
            unrouted(NoBranchError("a tombstone, which no branch takes, and no default"), payload, origin, meta)

    return build.entry(run, run if node.takes_tombstones else pass_by, above)
