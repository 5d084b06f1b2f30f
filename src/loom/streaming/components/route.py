"""Routers and forks: how a branch is chosen, and what leaves the branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_origin, is_typeddict

from msgspec.structs import replace

from loom.core.config.shape import show
from loom.core.shown import shown
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import CompiledBranch, CompiledNode, NodeForm, NodePath, PayloadTypes
from loom.streaming.compiler.names import branch_label, child_id
from loom.streaming.compiler.routing_function import RoutingFunction, read_asked
from loom.streaming.compiler.signatures import together, without_tombstones
from loom.streaming.compiler.walk import Compiled, NodeComponent, ProcessCompiler, StreamType, named, one_by_one
from loom.streaming.errors import ErrorKind
from loom.streaming.message import Message, MessageMeta
from loom.streaming.nodes.expressions import key_as_bytes
from loom.streaming.nodes.route import Fork, RouteBranch, Router
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.codegen import CodeWriter, build_function
from loom.streaming.runtime.stages.failures import Fail, NoBranchError
from loom.streaming.runtime.stages.node_input import NO_CHILD, Ancestors, NodeInput

__all__ = ["COMPONENTS", "CompiledChoice", "CompiledFork", "CompiledRouter"]

_NO_PREDICATE = "no predicate holds"
_TOMBSTONE = "a tombstone, which nothing here asks for among its types,"
_ONE_BY_ONE = (StreamShape.RECORD, StreamShape.MANY)


class CompiledChoice(CompiledNode, kw_only=True):
    """One branch takes each record: the one that the selector names, or the first whose predicate holds."""

    #: `None` where predicates choose
    selector: RoutingFunction | None
    #: one for each case; empty where a selector chooses
    predicates: tuple[RoutingFunction, ...]
    cases: tuple[CompiledBranch, ...]
    default: CompiledBranch | None

    @property
    def branches(self) -> tuple[CompiledBranch, ...]:
        return (*self.cases, self.default) if self.default is not None else self.cases

    @property
    def form(self) -> NodeForm:
        return NodeForm.CHOICE

    @property
    def given(self) -> tuple[Any, ...]:
        return tuple(asked.written for asked in (self.selector, *self.predicates) if asked is not None)

    @property
    def summary(self) -> str:
        if self.selector is not None:
            return f" by {self.selector.title}"
        return ", the first that holds"

    @property
    def otherwise(self) -> str | None:
        return "routing error" if self.default is None else None


class CompiledRouter(CompiledChoice, kw_only=True):
    """A choice in place: what leaves its branches continues.

    >>> router = Router.by(payload.country, {"ES": Process(Price)}, default=Process(Price))
    >>> compiled(router, Drain()).nodes[0].out_shape.value
    'record'
    """


class CompiledFork(CompiledChoice, kw_only=True):
    """A choice that ends the stream.

    >>> fork = Fork.by(payload.country, {"ES": Process(IntoTopic("orders.es"))}, default=Process(Drain()))
    >>> compiled(fork).nodes[0].out_shape.value
    'none'
    """


def _compile_router(walk: ProcessCompiler, node: Router, path: NodePath, flowing: StreamType) -> Compiled:
    """A router: the branches that do not end must agree in shape, and the next node must accept their types."""
    found = _choice(walk, node, path, flowing)
    leaving = [left for left in found.left if left.shape is not StreamShape.NONE]
    shapes = {left.shape for left in leaving if not left.behind_refused}
    if shapes <= {StreamShape.RECORD, StreamShape.MANY}:
        out_shape = StreamShape.MANY if StreamShape.MANY in shapes else StreamShape.RECORD
    elif len(shapes) == 1:
        (out_shape,) = shapes
    else:
        out_shape = StreamShape.RECORD
        walk.issues.error(
            Code.SHAPE_MISMATCH,
            "some branches of the Router make batches and others do not, so no node can follow it",
            path=path,
            expected="branches of one shape",
            found=", ".join(sorted(shape.value for shape in shapes)),
            remedy="end the branches that collect with ForEach()",
        )
    if not leaving:
        out_shape = StreamShape.NONE
    if found.asked is None:
        return None
    made = CompiledRouter(
        path=path,
        step_id=walk.name(flowing.parent, node.name or "router", path),
        in_shape=flowing.shape,
        out_shape=out_shape,
        accepts=flowing.payloads,
        returns=together(left.payloads for left in leaving),
        selector=found.asked[0] if node.selector is not None else None,
        predicates=found.asked if node.selector is None else (),
        cases=found.cases,
        default=found.default,
    )
    # Tombstones go everywhere, and a branch that lets nothing else through adds no type.
    kinds = {frozenset(without_tombstones(left.payloads).types) for left in leaving} - {frozenset()}
    mixed = made.returns.known and (len(kinds) > 1 or any(left.mixed for left in leaving))
    left = flowing.on(made, mixed=mixed)
    return made, replace(left, behind_refused=any(branch.behind_refused for branch in leaving))


def _compile_fork(walk: ProcessCompiler, node: Fork, path: NodePath, flowing: StreamType) -> Compiled:
    """A fork: every branch has to end."""
    found = _choice(walk, node, path, flowing)
    every = (*found.cases, *([found.default] if found.default is not None else []))
    for branch, left in zip(every, found.left, strict=True):
        walk.must_end("a Fork", branch.label, branch.path, left)
    if found.asked is None:
        return None
    made = CompiledFork(
        path=path,
        step_id=walk.name(flowing.parent, node.name or "fork", path),
        in_shape=flowing.shape,
        out_shape=StreamShape.NONE,
        accepts=flowing.payloads,
        returns=flowing.payloads,
        selector=found.asked[0] if node.selector is not None else None,
        predicates=found.asked if node.selector is None else (),
        cases=found.cases,
        default=found.default,
    )
    return made, flowing.on(made)


class _Found:
    """The parts of a choice, compiled; `left` tells what leaves each branch, the default last."""

    def __init__(self) -> None:
        self.asked: tuple[RoutingFunction, ...] | None = None
        self.cases: tuple[CompiledBranch, ...] = ()
        self.default: CompiledBranch | None = None
        self.left: list[StreamType] = []


def _choice(walk: ProcessCompiler, node: Router | Fork, path: NodePath, flowing: StreamType) -> _Found:
    found = _Found()
    what = type(node).__name__
    walk.check_shape(what, path, flowing, _ONE_BY_ONE)
    questions = [node.selector] if node.selector is not None else [branch.key for branch in node.branches]
    kind = "selector" if node.selector is not None else "predicate"
    asked = [read_asked(walk, kind, question, path, flowing) for question in questions]
    if None not in asked:
        found.asked = tuple(one for one in asked if one is not None)
    inside = one_by_one(flowing)
    if node.name is not None:
        inside = replace(inside, parent=child_id(flowing.parent, node.name))
    labels: dict[str, str] = {"default": "the default"} if node.default is not None else {}
    by_key = node.selector is not None
    cases = []
    for index, branch in enumerate(node.branches):
        label, title = _label(branch, by_key=by_key), _title(branch, by_key=by_key)
        if label in labels:
            walk.issues.error(
                Code.NAME_TWICE,
                f"the branches {labels[label]} and {title} have the same label {label!r}",
                path=(*path, index),
                remedy="step ids are made of the labels; "
                + (
                    f"rename {title} or the other key"
                    if by_key
                    else f"give one of them a name: {_route_class(what)}(…, name=…)"
                ),
            )
            label = f"{label}-{index}"  # said once, not again for each node inside
        labels[label] = title
        key = branch.key
        if by_key and found.asked is not None and found.asked[0].is_key:
            key = key_as_bytes(key)
        narrowed = inside
        if by_key and found.asked is not None and found.asked[0].is_type:
            narrowed = _of_type(walk, what, key, (*path, index), inside)
        made, left = walk.branch(key if by_key else None, label, title, branch.process, (*path, index), narrowed)
        cases.append(made)
        found.left.append(left)
    found.cases = tuple(cases)
    if node.default is not None:
        where = (*path, len(node.branches))
        if found.asked is not None and by_key and found.asked[0].is_type:
            keys = [branch.key for branch in node.branches]
            others = tuple(payload for payload in inside.payloads.types if payload not in keys)
            inside = replace(inside, payloads=PayloadTypes(others) if others else inside.payloads)
        found.default, left = walk.branch(None, "default", "otherwise", node.default, where, inside)
        found.left.append(left)
    return found


def _of_type(walk: ProcessCompiler, what: str, key: Any, path: NodePath, flowing: StreamType) -> StreamType:
    """What flows into the branch for payloads of exactly one class."""
    if not isinstance(key, type) or is_typeddict(key):
        walk.issues.error(
            Code.NODE_UNKNOWN,
            f"{show(key)}, a key of {what}.by(type, …), is the class of no payload",
            path=path,
            expected="classes",
            found=show(key),
            remedy="the keys are the classes of the payloads; the instances of a TypedDict and of dict[…] are of the class dict",
        )
        return flowing
    classes = [get_origin(payload) or payload for payload in without_tombstones(flowing.payloads).types]
    arriving = [dict if is_typeddict(cls) else cls for cls in classes]
    if flowing.payloads.known and not any(isinstance(cls, type) and issubclass(key, cls) for cls in arriving):
        walk.issues.error(
            Code.TYPE_MISMATCH,
            f"no record takes the branch {key.__qualname__} of {what}.by(type, …)",
            path=path,
            expected=flowing.payloads,
            found=key.__qualname__,
            remedy="remove the branch, or name a class that arrives here",
        )
    whole = [
        payload for payload, cls in zip(without_tombstones(flowing.payloads).types, arriving, strict=True) if cls is key
    ]
    return replace(flowing, payloads=PayloadTypes(tuple(whole) or (key,)))


def _label(branch: RouteBranch, *, by_key: bool) -> str:
    if branch.label is not None:
        return branch_label(branch.label)
    if by_key and isinstance(branch.key, type):
        return branch_label(branch.key.__name__)
    return branch_label(branch.key if by_key else named(branch.key))


def _title(branch: RouteBranch, *, by_key: bool) -> str:
    if by_key and isinstance(branch.key, type):
        return branch.key.__qualname__
    return repr(branch.key) if by_key else branch.label or named(branch.key)


def _route_class(what: str) -> str:
    return "ForkRoute" if what == "Fork" else "Route"


def _build(build: StageBuilder, node: CompiledChoice, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """One branch takes each record; what leaves a branch of a router continues with `after`."""
    # Behind a fork is nothing.
    end = after if node.continues else None
    places = build.places(node, above)
    build.branches(node.branches, end, places[:-1])
    fail = build.fail(node.step_id, node.path, above, kind=ErrorKind.ROUTING)
    #: of the expansions on the branches; a record on one is no child of those on the others
    inner = places[-1].cells[len(above.cells) :]

    def nowhere(what: str, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        fail(NoBranchError(f"{what} and no default"), payload, origin, meta)

    def emit(code: CodeWriter) -> None:
        for cell in inner:
            code.line(f"{code.name('cell', cell)}.at = {NO_CHILD}")
        chosen, what = _write_choice(code, node, fail, build.message)
        if node.default is None:
            failed = f"{code.name('nowhere', nowhere)}({what}, {code.payload}, origin, {code.meta})"
            with code.block(f"if {chosen} is None:"):
                code.line(*code.ending(failed))
        _write_branches(code, node, chosen, build)

    record, tombstone = build.emitted(node.path, emit, None), build_function(emit, None, tombstones=True)
    return build.entry(record, tombstone, above)


def _questions(node: CompiledChoice) -> list[RoutingFunction]:
    return [asked for asked in (node.selector, *node.predicates) if asked is not None]


def _write_choice(
    code: CodeWriter, node: CompiledChoice, fail: Fail, make_message: Callable[[Any, Any], Message[Any]]
) -> tuple[str, str]:
    """Ask which branch takes the record. Returns the variable with its number, and what is said where it is `None`."""
    default = len(node.cases) if node.default is not None else None
    # Of a tombstone, a question about the payload cannot be asked.
    asked = [question for question in _questions(node) if question.takes_tombstones or not code.tombstones]
    message = code.message(make_message) if any(question.of == "message" for question in asked) else ""
    chosen = code.variable()

    def question(asked: RoutingFunction) -> str:
        return f"{code.name('ask', asked.call)}({message if asked.of == 'message' else code.payload})"

    if node.selector is None:
        numbered = [(n, p) for n, p in enumerate(node.predicates) if p.takes_tombstones or not code.tombstones]
        holds = [f"{number} if {question(predicate)} else " for number, predicate in numbered]
        code.attempt(fail, f"{chosen} = {''.join(holds)}{default}")
        return chosen, repr(_TOMBSTONE if code.tombstones and not asked else _NO_PREDICATE)
    if not asked:
        code.line(f"{chosen} = {default}")
        return chosen, repr(_TOMBSTONE)
    key = f"{chosen}k"
    numbers = code.name("numbers", {branch.key: number for number, branch in enumerate(node.cases)})
    code.attempt(fail, f"{key} = {question(node.selector)}", f"{chosen} = {numbers}.get({key}, {default})")
    return chosen, f"'no branch for ' + {code.name('shown', shown)}({key})"


def _write_branches(code: CodeWriter, node: CompiledChoice, chosen: str, build: StageBuilder) -> None:
    """A block for each branch; what leaves them meets after the last."""
    out, classes, falls_through = code.variable(), [], False
    for number, branch in enumerate(node.branches):
        last = number == len(node.branches) - 1
        head = "else:" if last and number else f"{'if' if number == 0 else 'elif'} {chosen} == {number}:"
        with code.block(head if len(node.branches) > 1 else "if True:"):
            build.write_branch(code, branch)
            if not code.ended:
                code.line(f"{out} = {code.payload}")
                classes.append(code.classes)
                falls_through = True
            code.ended = False
    code.payload = out
    code.classes = frozenset().union(*classes) if all(classes) else frozenset()
    code.ended = not falls_through


COMPONENTS = (
    NodeComponent((Router,), _compile_router, CompiledRouter, _build),
    NodeComponent((Fork,), _compile_fork, CompiledFork, _build, ends=True),
)
