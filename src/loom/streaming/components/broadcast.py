"""A broadcast: every branch takes every record and ends."""

from __future__ import annotations

from typing import Any, get_origin

from msgspec.structs import replace

from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import CompiledBranch, CompiledNode, NodePath, PayloadTypes
from loom.streaming.compiler.names import branch_label, child_id, into_id
from loom.streaming.compiler.walk import Compiled, NodeComponent, ProcessCompiler, StreamType, one_by_one
from loom.streaming.message import Tombstone
from loom.streaming.nodes.boundary import IntoTopic
from loom.streaming.nodes.broadcast import Broadcast, BroadcastRoute
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.process import Process
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.codegen import CodeWriter, build_function
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput

__all__ = ["COMPONENTS", "CompiledBroadcast"]

#: classes whose instances no branch can change
_UNCHANGEABLE = (int, float, complex, str, bytes, bool, tuple, frozenset, type(None))


class CompiledBroadcast(CompiledNode, kw_only=True):
    """A node whose branches all take every record.

    >>> plan = compiled(Broadcast(BroadcastRoute(Process(Price), IntoTopic("orders.priced"), name="priced")))
    >>> [route.label for route in plan.nodes[0].routes]
    ['priced']
    """

    routes: tuple[CompiledBranch, ...]

    @property
    def branches(self) -> tuple[CompiledBranch, ...]:
        return self.routes

    @property
    def multiplies(self) -> bool:
        return True

    @property
    def summary(self) -> str:
        return ", every branch"


def _compile(walk: ProcessCompiler, node: Broadcast, path: NodePath, flowing: StreamType) -> Compiled:
    """A broadcast; the branches share the payload, so its type should be frozen."""
    walk.check_shape("Broadcast", path, flowing, (StreamShape.RECORD, StreamShape.MANY))
    _warn_shared(walk, path, flowing.payloads)
    inside = one_by_one(flowing)
    if node.name is not None:
        inside = replace(inside, parent=child_id(flowing.parent, node.name))
    labels: set[str] = set()
    branches = []
    for index, route in enumerate(node.routes):
        where = (*path, index)
        label = _label(route, index)
        if label in labels:
            walk.issues.error(
                Code.NAME_TWICE,
                f"two branches of the Broadcast have the label {label!r}",
                path=where,
                remedy="step ids are made of the labels; give one of them a name: BroadcastRoute(…, name=…)",
            )
            label = f"{label}-{index}"  # said once, not again for each node inside
        labels.add(label)
        branches.append(_branch(walk, route, label, where, inside))
    made = CompiledBroadcast(
        path=path,
        step_id=walk.name(flowing.parent, node.name or "broadcast", path),
        in_shape=flowing.shape,
        out_shape=StreamShape.NONE,
        accepts=flowing.payloads,
        returns=flowing.payloads,
        routes=tuple(branches),
    )
    return made, flowing.on(made)


def _branch(
    walk: ProcessCompiler, route: BroadcastRoute, label: str, path: NodePath, flowing: StreamType
) -> CompiledBranch:
    branch, left = walk.branch(None, label, label, route.process, path, flowing)
    if route.output is None:
        walk.must_end("a Broadcast", label, path, left)
        return branch
    if left.shape is StreamShape.NONE:
        walk.issues.error(
            Code.TWO_ENDS,
            f"the branch {label!r} of a Broadcast has an output after a process that has already ended",
            path=path,
            remedy="remove output=…, or the terminal in the process",
        )
        return branch
    step_id = walk.take(into_id(child_id(flowing.parent, label), route.output.name), path)
    output = walk.topics.output(
        route.output, path, "process", step_id, left.payloads, left.known_shape, mixed=left.mixed
    )
    if output is not None:
        walk.terminals[path] = output
    return replace(branch, output=output)


def _label(route: BroadcastRoute, index: int) -> str:
    if route.name is not None:
        return branch_label(route.name)
    process: Any = route.process
    nodes = process.nodes if isinstance(process, Process) else (process,)
    end = route.output if route.output is not None else nodes[-1]
    return branch_label(end.name) if isinstance(end, IntoTopic) else f"branch-{index}"


def _warn_shared(walk: ProcessCompiler, path: NodePath, payloads: PayloadTypes) -> None:
    changeable = [t for t in payloads.types if not _is_frozen(t)]
    if changeable:
        walk.issues.warn(
            Code.PAYLOAD_SHARED,
            "the branches of the Broadcast receive the same payload object, and its type is not frozen",
            path=path,
            expected="a LoomFrozenStruct",
            found=PayloadTypes(tuple(changeable)),
            remedy="make the type frozen, or make sure that no step changes what it receives",
        )


def _is_frozen(payload: Any) -> bool:
    cls = get_origin(payload) or payload
    config = getattr(cls, "__struct_config__", None)
    if config is not None:
        return bool(config.frozen)
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is not None:
        return bool(parameters.frozen)
    if hasattr(cls, "__pydantic_fields__"):
        return bool(cls.model_config.get("frozen"))
    if hasattr(cls, "__attrs_attrs__"):
        return getattr(cls.__setattr__, "__name__", "") == "_frozen_setattrs"
    return not isinstance(cls, type) or issubclass(cls, (*_UNCHANGEABLE, Tombstone))


def _build(build: StageBuilder, node: CompiledBroadcast, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """Every branch takes every record, one after the other."""
    # The branch is part of the order of results, as a child of an expansion is; errors name it by their step id.
    cell = build.cell(node.path)
    below = above.below(cell, told=False)
    entries = build.branches(node.routes, None, [below] * len(node.routes))

    def emit(code: CodeWriter) -> None:
        at = code.name("cell", cell)
        for number, entry in enumerate(entries):
            code.line(f"{at}.at = {number}")
            code.call(entry.tombstone if code.tombstones else entry.record)
        code.end()

    return build.entry(build.emitted(node.path, emit, None), build_function(emit, None, tombstones=True), above)


COMPONENTS = (NodeComponent((Broadcast,), _compile, CompiledBroadcast, _build, ends=True),)
