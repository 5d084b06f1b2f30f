"""The walk through a process: each declared node becomes a compiled one, with its path, step id, shapes and types.

One row per kind of node. What leaves a node (shape and payload types) is what the next one is checked against.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from loom.core.config import ConfigBinding, ConfigContext
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.bindings import bind_step, is_step
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.names import branch_label, child_id, into_id
from loom.streaming.compiler.plan import (
    CompiledBranch,
    CompiledFork,
    CompiledIntoTopic,
    CompiledNode,
    CompiledStep,
    NodePath,
    PayloadTypes,
    StepId,
    StepKind,
)
from loom.streaming.compiler.signatures import (
    UNKNOWN,
    UnreadableSignature,
    fits,
    kind_of,
    read_selector,
    read_signature,
)
from loom.streaming.compiler.topics import TopicResolver
from loom.streaming.message import Tombstone
from loom.streaming.nodes.boundary import IntoTopic
from loom.streaming.nodes.route import Fork, Selector
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.nodes.step import Step, StepFunction
from loom.streaming.process import Process

__all__ = ["Flowing", "ProcessWalk"]

_TAKES: dict[StepKind, tuple[StreamShape, ...]] = {
    StepKind.FUNCTION: (StreamShape.RECORD, StreamShape.MANY),
    StepKind.RECORD: (StreamShape.RECORD, StreamShape.MANY),
    StepKind.EXPAND: (StreamShape.RECORD, StreamShape.MANY),
    StepKind.BATCH: (StreamShape.RECORD, StreamShape.MANY, StreamShape.BATCH),
}


class Flowing(LoomFrozenStruct):
    """What flows at one place: a shape of payloads, under the step id of what it flows through."""

    shape: StreamShape
    payloads: PayloadTypes
    parent: str


class _Choice(LoomFrozenStruct):
    """How a fork calls its selector."""

    call: Any
    selects_on: Literal["payload", "message"]
    takes_tombstones: bool


class ProcessWalk:
    """Compiles the nodes of one flow; used once. `taken` are step ids that stand outside the process."""

    def __init__(
        self, config: ConfigContext, topics: TopicResolver, issues: Issues, *, taken: Iterable[StepId] = ()
    ) -> None:
        self._config = config
        self._topics = topics
        self._issues = issues
        self._names: set[str] = set(taken)
        #: inner outputs, in the order of their paths
        self.terminals: dict[NodePath, CompiledIntoTopic] = {}

    def nodes(self, nodes: Iterable[Any], base: NodePath, flowing: Flowing) -> tuple[tuple[CompiledNode, ...], Flowing]:
        """Compile a sequence of nodes; also tells what leaves the last one."""
        compiled: list[CompiledNode] = []
        for index, node in enumerate(nodes):
            path = (*base, index)
            if flowing.shape is StreamShape.NONE:
                self._issues.error(
                    Code.BEHIND_TERMINAL,
                    f"{_named(node)} stands behind a node that ends the stream",
                    path=path,
                    remedy="end the process there, or move this node in front of the terminal",
                )
                break
            result = self._node(node, path, flowing)
            if result is None:
                # Already reported. What leaves a node that is not understood is not known, but a terminal is the end.
                ended = isinstance(node, Fork | IntoTopic)
                flowing = Flowing(StreamShape.NONE if ended else flowing.shape, UNKNOWN, flowing.parent)
                continue
            made, flowing = result
            compiled.append(made)
        return tuple(compiled), flowing

    def _node(self, node: Any, path: NodePath, flowing: Flowing) -> tuple[CompiledNode, Flowing] | None:
        if is_step(node):
            return self._step(node, path, flowing)
        if isinstance(node, Fork):
            return self._fork(node, path, flowing)
        if isinstance(node, IntoTopic):
            return self._into_topic(node, path, flowing)
        remedy = "use a step class or instance, a @step function, X.from_config(…), Fork.by(…) or IntoTopic(…)"
        if isinstance(node, Process):
            remedy = "write its nodes in this process directly"
        elif callable(node):
            remedy = "decorate the function with @step"
        self._issues.error(Code.NODE_UNKNOWN, f"{_named(node)} is no node", path=path, remedy=remedy)
        return None

    def _step(self, node: Any, path: NodePath, flowing: Flowing) -> tuple[CompiledNode, Flowing] | None:
        bound = bind_step(node, self._config, self._issues, path)
        if bound is None:
            return None
        if isinstance(node, StepFunction):
            name, kind, callee, owner = node.step_name(), StepKind.FUNCTION, bound.instance, None
        else:
            step: Step[Any, Any] = bound.instance
            found_kind = kind_of(step)
            if found_kind is None or type(step).execute is _inherited(type(step)):  # type: ignore[attr-defined]
                self._issues.error(
                    Code.STEP_SIGNATURE,
                    f"{type(step).__qualname__} defines no execute()",
                    path=path,
                    remedy=f"let {type(step).__qualname__} inherit from RecordStep, ExpandStep or BatchStep and define "
                    "execute(self, message)",
                )
                return None
            name, kind, callee, owner = step.step_name(), found_kind, step.execute, type(step)  # type: ignore[attr-defined]
        try:
            signature = read_signature(callee, kind, owner)
        except UnreadableSignature as unreadable:
            self._issues.error(Code.STEP_SIGNATURE, f"{name}: {unreadable}", path=path, remedy=unreadable.remedy)
            return None
        if signature.is_async:
            self._issues.error(
                Code.STEP_ASYNC,
                f"{name} is an async step",
                path=path,
                remedy=f"make {name} a plain function; async steps belong in WithAsync, which is not supported yet",
            )
        for dependency in signature.dependencies:
            self._issues.error(
                Code.STEP_DEPENDENCY,
                f"{name} asks for {dependency!r}, which nothing provides",
                path=path,
                remedy=f"give {dependency!r} to the constructor, or a default; dependencies come from With(…), which "
                "is not supported yet",
            )
        self._check_shape(name, path, flowing.shape, _TAKES[kind])
        flowing_in = _without_tombstones(flowing.payloads)
        if not fits(flowing_in, signature.accepts):
            self._issues.error(
                Code.TYPE_MISMATCH,
                f"{name} does not take what arrives",
                path=path,
                expected=signature.accepts,
                found=flowing.payloads,
                remedy=f"change the annotation of {name}, or put a step in front that makes one of the other",
            )
        out_shape = _leaves(kind, flowing.shape)
        step_id = self._name(flowing.parent, name, path)
        made = CompiledStep(
            path,
            step_id,
            name,
            kind,
            bound,
            flowing.shape,
            out_shape,
            signature.accepts,
            signature.returns,
            signature.may_drop,
            signature.takes_tombstones,
        )
        return made, Flowing(out_shape, signature.returns, flowing.parent)

    def _fork(self, node: Fork, path: NodePath, flowing: Flowing) -> tuple[CompiledNode, Flowing] | None:
        self._check_shape("Fork", path, flowing.shape, (StreamShape.RECORD, StreamShape.MANY))
        choice = self._choice(node.selector, path, flowing)
        branches = []
        labels: dict[str, Any] = {"default": "default"} if node.default is not None else {}
        for index, branch in enumerate(node.branches):
            label = branch_label(branch.key)
            if label in labels:
                self._issues.error(
                    Code.NAME_TWICE,
                    f"the branches {labels[label]!r} and {branch.key!r} have the same label {label!r}",
                    path=(*path, index),
                    remedy=f"step ids are made of the labels; rename {branch.key!r} or the other key",
                )
            labels[label] = branch.key
            branches.append(self._branch(branch.key, label, branch.process, (*path, index), flowing))
        default = None
        if node.default is not None:
            default = self._branch(None, "default", node.default, (*path, len(node.branches)), flowing)
        if choice is None:
            return None
        made = CompiledFork(
            path,
            self._name(flowing.parent, "fork", path),
            choice.call,
            choice.selects_on,
            choice.takes_tombstones,
            tuple(branches),
            default,
        )
        return made, Flowing(StreamShape.NONE, flowing.payloads, flowing.parent)

    def _choice(self, selector: Any, path: NodePath, flowing: Flowing) -> _Choice | None:
        if isinstance(selector, type) or not (isinstance(selector, Selector) or callable(selector)):
            self._issues.error(
                Code.NODE_UNKNOWN,
                f"the selector {_named(selector)} is neither a function nor an object with select(message)",
                path=path,
                remedy=f"give an instance, {selector.__qualname__}(…)" if isinstance(selector, type) else None,
            )
            return None
        is_object = isinstance(selector, Selector)
        call = selector.select if is_object else selector.function if isinstance(selector, StepFunction) else selector
        try:
            signature = read_selector(call)
        except UnreadableSignature as unreadable:
            problem = f"the selector {_named(selector)}: {unreadable}"
            self._issues.error(Code.STEP_SIGNATURE, problem, path=path, remedy=unreadable.remedy)
            return None
        accepts, on_message = signature.accepts, is_object or signature.asks_for_message
        if not fits(_without_tombstones(flowing.payloads), accepts):
            self._issues.error(
                Code.TYPE_MISMATCH,
                f"the selector {_named(selector)} does not take what arrives",
                path=path,
                expected=accepts,
                found=flowing.payloads,
                remedy="change its annotation, or put a step in front that makes what it takes",
            )
        return _Choice(
            call,
            "message" if on_message else "payload",
            on_message or (accepts.known and Tombstone in accepts.types),
        )

    def _branch(self, key: Any, label: str, process: Any, path: NodePath, flowing: Flowing) -> CompiledBranch:
        nodes = process if isinstance(process, Process) else (process,)
        inside = Flowing(flowing.shape, flowing.payloads, child_id(flowing.parent, label))
        compiled, left = self.nodes(nodes, path, inside)
        if left.shape is not StreamShape.NONE:
            self._issues.error(
                Code.NO_END,
                f"the branch {label!r} of a Fork has no end; its records would go nowhere",
                path=path,
                remedy=f"end the branch {label!r} with IntoTopic(…)",
            )
        return CompiledBranch(key, label, compiled)

    def _into_topic(
        self, node: IntoTopic[Any], path: NodePath, flowing: Flowing
    ) -> tuple[CompiledNode, Flowing] | None:
        step_id = self._take(into_id(flowing.parent, node.name), path)
        output = self._topics.output(node, path, "process", step_id, flowing.payloads, flowing.shape)
        if output is None:
            return None
        made = CompiledIntoTopic(path, step_id, output)
        self.terminals[path] = made
        return made, Flowing(StreamShape.NONE, flowing.payloads, flowing.parent)

    def _check_shape(self, name: str, path: NodePath, found: StreamShape, takes: tuple[StreamShape, ...]) -> None:
        if found not in takes:
            self._issues.error(
                Code.SHAPE_MISMATCH,
                f"{name} cannot be handed a {found.value}",
                path=path,
                expected=" or ".join(shape.value for shape in takes),
                found=found.value,
                remedy=f"put a node in front of {name} that makes one of these",
            )

    def _name(self, parent: str, name: str, path: NodePath) -> StepId:
        return self._take(child_id(parent, name), path)

    def _take(self, step_id: StepId, path: NodePath) -> StepId:
        if step_id in self._names:
            self._issues.error(
                Code.NAME_TWICE,
                f"two nodes are called {step_id!r}",
                path=path,
                remedy="give one of them another name: the class attribute `name`, or @step(name=…)",
            )
        self._names.add(step_id)
        return step_id


def _inherited(step_class: type) -> Any:
    """The `execute` of our own base class, which only says that it is missing."""
    bases = (base for base in step_class.__mro__ if base.__module__ == Step.__module__)
    return next((vars(base)["execute"] for base in bases if "execute" in vars(base)), None)


def _leaves(kind: StepKind, arrived: StreamShape) -> StreamShape:
    """What leaves a step: a batch stays one, an expansion makes many of each, and any other takes them one by one."""
    if kind is StepKind.EXPAND:
        return StreamShape.MANY
    return arrived if kind is StepKind.BATCH and arrived is StreamShape.BATCH else StreamShape.RECORD


def _without_tombstones(payloads: PayloadTypes) -> PayloadTypes:
    """Tombstones pass a step that does not name them, so they are no mismatch."""
    return PayloadTypes(tuple(t for t in payloads.types if t is not Tombstone), payloads.known)


def _named(node: object) -> str:
    """A node as its author would name it. Not its `repr`, which shows what it was configured with."""
    if isinstance(node, ConfigBinding):
        node = node.target
    elif isinstance(node, IntoTopic):
        return f"IntoTopic({node.name!r})"
    elif isinstance(node, Step | Fork | Process):
        node = type(node)
    return getattr(node, "__qualname__", None) or repr(node)
