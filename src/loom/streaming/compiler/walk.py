"""The walk through a process: each declared node becomes a compiled one, with its path, step id, shapes and types.

The component of a node says how it is compiled. What leaves a node (shape and payload types) is what the next
one is checked against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from msgspec.structs import replace

from loom.core.config import ConfigBinding, ConfigContext
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import CompiledBranch, CompiledNode, CompiledTopic, NodePath, PayloadTypes, StepId
from loom.streaming.compiler.names import child_id
from loom.streaming.compiler.signatures import UNKNOWN, fits, without_tombstones
from loom.streaming.compiler.topics import TopicResolver
from loom.streaming.errors import LoomStreamingError
from loom.streaming.nodes.boundary import IntoTopic
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.nodes.step import RetriedStep, Step
from loom.streaming.process import Process

if TYPE_CHECKING:
    from loom.streaming.runtime.stages.builder import BuildNode

__all__ = [
    "Compiled",
    "ComponentError",
    "NodeComponent",
    "ProcessCompiler",
    "ScopeNames",
    "StreamType",
    "named",
    "one_by_one",
]


class StreamType(LoomFrozenStruct):
    """What flows at one place: a shape of payloads, under the step id of what it flows through."""

    shape: StreamShape
    payloads: PayloadTypes
    parent: str
    #: the branches it came from produce different types, and nothing after them has named these yet
    mixed: bool = False
    #: the id of the node that it left, for nodes that are named after the one in front of them
    left: str = ""
    #: a node above was refused, so it is unknown in which shape anything leaves it, or whether anything does
    behind_refused: bool = False

    @property
    def known_shape(self) -> StreamShape | None:
        """The shape, if the next node can be checked against it."""
        return None if self.behind_refused else self.shape

    def on(self, node: CompiledNode, *, mixed: bool = False) -> StreamType:
        """What leaves a node."""
        return StreamType(node.out_shape, node.returns, self.parent, mixed, node.step_id)


def one_by_one(flowing: StreamType) -> StreamType:
    """What flows into the branches of a node, which take records one by one; a batch there has been reported."""
    return replace(flowing, shape=StreamShape.RECORD) if flowing.shape is StreamShape.BATCH else flowing


class ScopeNames:
    """The dependencies that the scope around a process provides, by name, and which of them a step takes."""

    def __init__(self, names: Iterable[str], *, is_async: bool) -> None:
        self.names = tuple(names)
        #: whether steps inside may be async
        self.is_async = is_async
        self.taken: set[str] = set()

    def take(self, wanted: Iterable[str], *, everything: bool) -> tuple[str, ...]:
        """The names that a step inside is given: those it names; all if it takes whatever there is."""
        found = self.names if everything else tuple(name for name in self.names if name in set(wanted))
        self.taken.update(found)
        return found


#: a compiled node and what leaves it; `None` where that has been reported as an issue
Compiled: TypeAlias = tuple[CompiledNode, StreamType] | None


class ComponentError(LoomStreamingError):
    """The component of a node cannot be used."""


class NodeComponent(NamedTuple):
    """The registration of a kind of node: everything that is known of it follows from here.

    >>> from loom.streaming.compiler.registry import component_of
    >>> component_of(IntoTopic("orders.priced")).ends
    True
    """

    #: the classes that an author writes; subclasses are recognised too
    declares: tuple[type, ...]
    #: checks a declaration, and makes a `compiled` of it
    compile: Callable[[ProcessCompiler, Any, NodePath, StreamType], Compiled]
    #: the class of what it makes; `None` for a node that is always refused
    compiled: type[CompiledNode] | None = None
    #: makes a compiled node part of a stage
    build: BuildNode | None = None
    #: nothing may follow it, even if it is not understood
    ends: bool = False
    #: a class may be in a process as well as an instance of it
    takes_classes: bool = False


class ProcessCompiler:
    """Compiles the nodes of one flow; used once. `taken` are step ids outside the process."""

    def __init__(
        self,
        component_of: Callable[[Any], NodeComponent | None],
        config: ConfigContext,
        topics: TopicResolver,
        issues: Issues,
        *,
        taken: Iterable[StepId] = (),
    ) -> None:
        self._component_of = component_of
        self.config = config
        self.topics = topics
        self.issues = issues
        self._names: set[str] = set(taken)
        #: inner outputs and storage sinks, in the order of their paths
        self.terminals: dict[NodePath, CompiledTopic] = {}
        self.storage: dict[NodePath, Any] = {}
        #: of the scope whose process is being compiled
        self.scope: ScopeNames | None = None

    def nodes(
        self, nodes: Iterable[Any], base: NodePath, flowing: StreamType
    ) -> tuple[tuple[CompiledNode, ...], StreamType]:
        """Compile a sequence of nodes; also tells what leaves the last one."""
        compiled: list[CompiledNode] = []
        for index, node in enumerate(nodes):
            path = (*base, index)
            if flowing.shape is StreamShape.NONE:
                self.issues.error(
                    Code.BEHIND_TERMINAL,
                    f"{named(node)} comes after a node that ends the stream",
                    path=path,
                    remedy="end the process there, or move this node in front of the terminal",
                )
                break
            component = self._find(node, path)
            result = component.compile(self, node, path, flowing) if component is not None else None
            if result is None:
                # Already reported. What leaves a node that is not understood is not known, but a terminal is the end.
                ended = component is not None and component.ends
                shape = StreamShape.NONE if ended else StreamShape.RECORD
                flowing = replace(flowing, shape=shape, payloads=UNKNOWN, mixed=False, behind_refused=not ended)
                continue
            made, flowing = result
            compiled.append(made)
        return tuple(compiled), flowing

    def branch(
        self, key: Any, label: str, title: str, process: Any, path: NodePath, flowing: StreamType
    ) -> tuple[CompiledBranch, StreamType]:
        """Compile one way out of a node; also tells what leaves it."""
        nodes = process if isinstance(process, Process) else (process,)
        inside = replace(flowing, parent=child_id(flowing.parent, label), left="")
        compiled, left = self.nodes(nodes, path, inside)
        return CompiledBranch(key, label, title, compiled, None, path), left

    def must_end(self, what: str, label: str, path: NodePath, left: StreamType) -> None:
        """Report a branch of a terminal node that falls through."""
        if left.known_shape not in (StreamShape.NONE, None):
            self.issues.error(
                Code.NO_END,
                f"the branch {label!r} of {what} has no end; its records would go nowhere",
                path=path,
                remedy=f"end the branch {label!r} with IntoTopic(…)",
            )

    def check_shape(self, name: str, path: NodePath, flowing: StreamType, takes: tuple[StreamShape, ...]) -> None:
        """Report a node that receives a shape it does not take."""
        found = flowing.known_shape
        if found is not None and found not in takes:
            self.issues.error(
                Code.SHAPE_MISMATCH,
                f"{name} cannot receive a {found.value}",
                path=path,
                expected=" or ".join(shape.value for shape in takes),
                found=found.value,
                remedy=f"put a node in front of {name} that makes one of these",
            )

    def check_types(self, name: str, path: NodePath, flowing: StreamType, accepts: PayloadTypes) -> None:
        """Report a node that receives a payload type it does not take. Tombstones bypass nodes that do not name them."""
        if not fits(without_tombstones(flowing.payloads), accepts):
            self.issues.error(
                Code.TYPE_MISMATCH,
                f"{name} does not take what arrives",
                path=path,
                expected=accepts,
                found=flowing.payloads,
                remedy=f"change the annotation of {name}, or put a step in front that makes one of the other",
            )

    def name(self, parent: str, name: str, path: NodePath) -> StepId:
        """The step id of something called `name` under `parent`."""
        return self.take(child_id(parent, name), path)

    def numbered(self, parent: str, name: str, path: NodePath) -> StepId:
        """The step id of something that has no name of its own; the second under one parent is called `name-2`."""
        number, found = 1, child_id(parent, name)
        while found in self._names:
            number += 1
            found = child_id(parent, f"{name}-{number}")
        return self.take(found, path)

    def take(self, step_id: StepId, path: NodePath) -> StepId:
        """Note a step id as taken; one that was already is reported."""
        if step_id in self._names:
            self.issues.error(
                Code.NAME_TWICE,
                f"two nodes are called {step_id!r}",
                path=path,
                remedy="give one of them another name: the class attribute `name`, @step(name=…), or name=… of the node",
            )
        self._names.add(step_id)
        return step_id

    def _find(self, node: Any, path: NodePath) -> NodeComponent | None:
        try:
            component = self._component_of(node)
        except ComponentError as error:
            self.issues.error(
                Code.NODE_UNKNOWN,
                f"{named(node)} cannot be compiled: {error}",
                path=path,
                remedy="fix the package that registers the node, or install another version of it",
            )
            return None
        if component is None:
            self._unknown(node, path)
        return component

    def _unknown(self, node: Any, path: NodePath) -> None:
        remedy = "use a step (class, instance, @step function or X.from_config(…)), a node such as Router.by(…), or IntoTopic(…)"
        if isinstance(node, Process):
            remedy = "write its nodes in this process directly"
        elif callable(node):
            remedy = "decorate the function with @step"
        self.issues.error(Code.NODE_UNKNOWN, f"{named(node)} is no node", path=path, remedy=remedy)


def named(node: object) -> str:
    """A node as its author would name it. Not its `repr`, which shows what it was configured with."""
    if isinstance(node, RetriedStep):
        node = node.step
    if isinstance(node, ConfigBinding):
        node = node.target
    elif isinstance(node, IntoTopic):
        return f"IntoTopic({node.name!r})"
    elif isinstance(node, Step | Process) or type(node).__module__.startswith("loom.streaming.nodes."):
        node = getattr(node, "__wrapped__", type(node))
    return getattr(node, "__qualname__", None) or repr(node)
