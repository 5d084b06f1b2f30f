"""Expansions without a step class: after `Explode` the stream continues, `ExpandRoutes` routes by type and ends it."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec.structs import replace

from loom.core.config.shape import show
from loom.core.expr import Expression
from loom.core.shown import shown
from loom.streaming.compiler.callables import never_iterable
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import CompiledBranch, CompiledNode, NodePath, PayloadTypes
from loom.streaming.compiler.names import branch_label, child_id
from loom.streaming.compiler.routing_function import RoutingFunction, read_asked
from loom.streaming.compiler.signatures import (
    UnreadableSignature,
    elements_of,
    payloads_of,
    read_selector,
    together,
    without_tombstones,
)
from loom.streaming.compiler.walk import Compiled, NodeComponent, ProcessCompiler, StreamType, named
from loom.streaming.errors import ErrorKind
from loom.streaming.message import MessageMeta, Tombstone
from loom.streaming.nodes.expand import ExpandRoutes, Explode, PayloadExpander
from loom.streaming.nodes.expressions import types_of
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.nodes.step import StepFunction
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.expansion import build_expansion
from loom.streaming.runtime.stages.failures import NoBranchError
from loom.streaming.runtime.stages.node_input import NO_CHILD, Ancestors, NodeInput, Receive
from loom.streaming.runtime.stages.result_check import Unusual, classify_result, several

__all__ = ["COMPONENTS", "CompiledExpandRoutes", "CompiledExplode"]

#: into a branch: the classes that need no further check, where those go, and where any other goes
Way: TypeAlias = tuple[frozenset[type], Receive, Unusual]

_ONE_BY_ONE = (StreamShape.RECORD, StreamShape.MANY)


class CompiledExplode(CompiledNode, kw_only=True):
    """A node that makes many payloads of one.

    >>> compiled(Explode(payload.lines), Drain()).nodes[0].out_shape.value
    'many'
    """

    exploder: RoutingFunction
    takes_tombstones: bool

    @property
    def multiplies(self) -> bool:
        return True

    @property
    def given(self) -> tuple[Any, ...]:
        return (self.exploder.written,)

    @property
    def summary(self) -> str:
        return f": {self.accepts} -> {self.returns}"


class CompiledExpandRoutes(CompiledNode, kw_only=True):
    """A node that makes payloads of several types of one, each of which has a branch.

    >>> routes = {Line: Process(IntoTopic("orders.lines"))}
    >>> plan = compiled(ExpandRoutes(expander=SplitOrder(), routes=routes, default=Process(Drain())))
    >>> [branch.label for branch in plan.nodes[0].branches]
    ['line', 'default']
    """

    expander: Any
    takes_tombstones: bool
    routes: tuple[CompiledBranch, ...]
    default: CompiledBranch | None

    @property
    def branches(self) -> tuple[CompiledBranch, ...]:
        return (*self.routes, self.default) if self.default is not None else self.routes

    @property
    def multiplies(self) -> bool:
        return True

    @property
    def given(self) -> tuple[Any, ...]:
        return (self.expander,)

    @property
    def summary(self) -> str:
        return f" by type: {self.accepts} -> {self.returns}"

    @property
    def otherwise(self) -> str | None:
        return "routing error" if self.default is None else None


def _compile_explode(walk: ProcessCompiler, node: Explode, path: NodePath, flowing: StreamType) -> Compiled:
    """An exploder is a function of the payload; what it makes is read from its annotation."""
    walk.check_shape("Explode", path, flowing, _ONE_BY_ONE)
    if isinstance(node.exploder, Expression):
        return _explode_expression(walk, node, node.exploder, path, flowing)
    call: Any = node.exploder.function if isinstance(node.exploder, StepFunction) else node.exploder
    if isinstance(call, type) or not callable(call):
        walk.issues.error(
            Code.NODE_UNKNOWN,
            f"the exploder {named(call)} is no function",
            path=path,
            remedy="write Explode(lambda payload: payload.items), or give a function of the payload",
        )
        return None
    problem = f"the exploder {named(node.exploder)}"
    try:
        signature = read_selector(call, yields=True)
        if never_iterable(signature.returns):
            raise UnreadableSignature(
                f"it gives several payloads, but is annotated to return {show(signature.returns)}",
                "return a list of them, and annotate it so",
            )
        if signature.asks_for_message:
            raise UnreadableSignature(
                "its parameter is annotated as a Message, but it receives the payload",
                "annotate the payload's type, or write an ExpandStep",
            )
    except UnreadableSignature as unreadable:
        walk.issues.error(Code.STEP_SIGNATURE, f"{problem}: {unreadable}", path=path, remedy=unreadable.remedy)
        return None
    walk.check_types(problem, path, flowing, signature.accepts)
    tombstones = signature.accepts.known and Tombstone in signature.accepts.types
    asked = RoutingFunction(call, call, "payload", tombstones, "payload")
    return _exploding(walk, node, asked, path, flowing, signature.accepts, elements_of(signature.returns))


def _explode_expression(
    walk: ProcessCompiler, node: Explode, exploder: Expression, path: NodePath, flowing: StreamType
) -> Compiled:
    """An expression names a field of the payload that holds many."""
    asked = read_asked(walk, "exploder", exploder, path, flowing)
    if asked is None:
        return None
    arriving = without_tombstones(flowing.payloads)
    found = types_of(exploder, arriving.types if arriving.known else ())
    problem = None
    if asked.of == "message":
        problem = "reads the message, but an exploder receives the payload"
    elif found and all(map(never_iterable, found)):
        problem = f"is {' or '.join(map(show, found))}, of which there is one"
    if problem is not None:
        walk.issues.error(
            Code.TYPE_MISMATCH,
            f"the exploder {exploder!r} {problem}",
            path=path,
            expected="a field of the payload that holds a list",
            found=flowing.payloads,
            remedy="write Explode(payload.items) with such a field, or give a function of the payload",
        )
        return None
    return _exploding(walk, node, asked, path, flowing, arriving, together(map(elements_of, found)))


def _exploding(
    walk: ProcessCompiler,
    node: Explode,
    asked: RoutingFunction,
    path: NodePath,
    flowing: StreamType,
    accepts: PayloadTypes,
    returns: PayloadTypes,
) -> Compiled:
    made = CompiledExplode(
        path=path,
        step_id=walk.name(flowing.parent, node.name or "explode", path),
        in_shape=flowing.shape,
        out_shape=StreamShape.MANY,
        accepts=accepts,
        returns=returns,
        exploder=asked,
        takes_tombstones=asked.takes_tombstones,
    )
    return made, flowing.on(made)


def _compile_expand_routes(walk: ProcessCompiler, node: ExpandRoutes, path: NodePath, flowing: StreamType) -> Compiled:
    """What the expander makes is taken at its word: the payloads under a type are of that type."""
    walk.check_shape("ExpandRoutes", path, flowing, _ONE_BY_ONE)
    accepts = _accepted(walk, node, path, flowing)
    inside = StreamType(StreamShape.MANY, flowing.payloads, flowing.parent)
    if node.name is not None:
        inside = replace(inside, parent=child_id(flowing.parent, node.name))
    labels: set[str] = {"default"} if node.default is not None else set()
    routes = []
    for index, (payload, process) in enumerate(node.routes.items()):
        where = (*path, index)
        payloads = payloads_of(payload)
        declared: object = payload
        if not isinstance(declared, type):
            walk.issues.error(
                Code.NODE_UNKNOWN,
                f"{declared!r}, a key of ExpandRoutes, is no type",
                path=where,
                remedy="the keys of routes={…} are the payload types that the expander makes",
            )
        label = branch_label(getattr(payload, "__name__", payload))
        if label in labels:
            walk.issues.error(
                Code.NAME_TWICE,
                f"two branches of ExpandRoutes have the label {label!r}",
                path=where,
                remedy="step ids are made of the names of the types; rename one of them",
            )
            label = f"{label}-{index}"  # said once, not again for each node inside
        labels.add(label)
        branch, left = walk.branch(payload, label, str(payloads), process, where, replace(inside, payloads=payloads))
        walk.must_end("ExpandRoutes", label, where, left)
        routes.append(branch)
    default = None
    if node.default is not None:
        where = (*path, len(node.routes))
        unknown = replace(inside, payloads=PayloadTypes((), known=False))
        default, left = walk.branch(None, "default", "otherwise", node.default, where, unknown)
        walk.must_end("ExpandRoutes", "default", where, left)
    if accepts is None:
        return None
    made = CompiledExpandRoutes(
        path=path,
        step_id=walk.name(flowing.parent, node.name or "expand_routes", path),
        in_shape=flowing.shape,
        out_shape=StreamShape.NONE,
        accepts=accepts,
        returns=PayloadTypes(tuple(node.routes)),
        expander=node.expander,
        takes_tombstones=accepts.known and Tombstone in accepts.types,
        routes=tuple(routes),
        default=default,
    )
    return made, flowing.on(made)


def _accepted(walk: ProcessCompiler, node: ExpandRoutes, path: NodePath, flowing: StreamType) -> PayloadTypes | None:
    """The payload types that the expander takes, or `None` if it is no expander."""
    if isinstance(node.expander, type | Expression) or not isinstance(node.expander, PayloadExpander):
        walk.issues.error(
            Code.NODE_UNKNOWN,
            f"the expander {named(node.expander)} is no object with expand(payload)",
            path=path,
            remedy="write a class with expand(self, payload) -> dict[type, list], and give an instance of it",
        )
        return None
    problem = f"the expander {named(type(node.expander))}"
    try:
        accepts = read_selector(node.expander.expand).accepts
    except UnreadableSignature as unreadable:
        walk.issues.error(Code.STEP_SIGNATURE, f"{problem}: {unreadable}", path=path, remedy=unreadable.remedy)
        return None
    walk.check_types(problem, path, replace(flowing, payloads=without_tombstones(flowing.payloads)), accepts)
    return accepts


def _build_explode(build: StageBuilder, node: CompiledExplode, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """A payload becomes many; one that is no payload (`None`) is an error of its own."""
    assert after is not None
    return build_expansion(
        build,
        node.path,
        node.step_id,
        node.exploder.call,
        node.returns,
        after,
        above,
        name=node.step_id,
        takes_messages=False,
        takes_tombstones=node.takes_tombstones,
    )


def _build_expand_routes(
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


COMPONENTS = (
    NodeComponent((Explode,), _compile_explode, CompiledExplode, _build_explode),
    NodeComponent((ExpandRoutes,), _compile_expand_routes, CompiledExpandRoutes, _build_expand_routes, ends=True),
)
