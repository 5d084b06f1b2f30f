"""A plan as boxes and edges: what is read, the nodes and their branches, where everything goes.

Drawn as a Mermaid flowchart, and by whoever watches a flow that runs. Edges out of a node with several ways carry the titles
of its branches. Any node may fail, so the routes of errors leave the process as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.explain.document import said_of, unrouted_kinds
from loom.streaming.compiler.model import CompiledNode, CompiledTopic, NodeForm, NodePath, PayloadTypes, PlanModel
from loom.streaming.compiler.names import SOURCE as SOURCE_NAME
from loom.streaming.compiler.names import child_id
from loom.streaming.errors import ErrorKind

__all__ = ["OUTPUT", "PROCESS", "SOURCE", "Box", "Edge", "Picture", "picture_of"]

#: ids of what there is once
PROCESS: Final = "process"
SOURCE: Final = "source"
OUTPUT: Final = "output"
_UNROUTED = "unrouted"

#: a box that records leave, and the title of the way on which they do
_Leaving = tuple[str, str | None]


class Box(LoomFrozenStruct):
    """A place that records come to."""

    #: unique in the picture
    id: str
    form: NodeForm
    #: what a person should read, the most important first
    said: tuple[str, ...]
    #: within the process
    inside: bool
    #: the step under which its counters and errors are kept, where it has one
    step_id: str | None = None
    #: what is read or written there
    topics: tuple[str, ...] = ()


class Edge(LoomFrozenStruct):
    """A way from a box, or from the whole process, to a box."""

    source: str
    target: str
    title: str | None = None
    #: for records that failed
    errors: bool = False


class Picture(LoomFrozenStruct):
    """All boxes, those nearest to the source first, and the ways between them."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


def picture_of(plan: PlanModel) -> Picture:
    """The boxes and edges of a plan."""
    drawn = _Drawing(plan)
    drawn.draw()
    return Picture(tuple(drawn.boxes), tuple(drawn.edges))


class _Drawing:
    """A picture in the making."""

    def __init__(self, plan: PlanModel) -> None:
        self._plan = plan
        self.boxes: list[Box] = []
        self.edges: list[Edge] = []
        self._dead_letters: dict[str, str] = {}
        self._errors: dict[ErrorKind, str] = {}

    def draw(self) -> None:
        """Draw the whole plan."""
        plan = self._plan
        source = plan.source
        reads = f"{PayloadTypes(source.payloads)} from {', '.join(source.topics)}"
        said = (source.name, reads, f"{source.mode.label}, group {source.settings.group_id}")
        self.boxes.append(
            Box(SOURCE, NodeForm.STORE, said, False, child_id(plan.name, SOURCE_NAME), tuple(source.topics))
        )
        self._draw_errors()
        leaving = self._chain(plan.nodes, [(SOURCE, None)])
        if plan.output is not None:
            self._topic(OUTPUT, plan.output, leaving, inside=False)

    def _draw_errors(self) -> None:
        plan = self._plan
        for number, route in enumerate(plan.error_routes):
            box = f"errors_{number}"
            self._topic(box, route.output, [], inside=False)
            self._edge(PROCESS, box, _errors(route.kinds), errors=True)
            self._errors.update(dict.fromkeys(route.kinds, box))
        unrouted = unrouted_kinds(plan)
        if unrouted:
            said = "the run stops" if plan.unrouted == "fail" else "dropped, counted and logged"
            self.boxes.append(Box(_UNROUTED, NodeForm.END, (said,), False))
            self._edge(PROCESS, _UNROUTED, _errors(unrouted), errors=True)

    def _chain(self, nodes: Iterable[CompiledNode], arriving: list[_Leaving]) -> list[_Leaving]:
        """Draw nodes one after the other; returns where records leave the last one."""
        for node in nodes:
            box = _box_id(node.path)
            if node.output is not None:
                self._topic(box, node.output, arriving, inside=True)
                arriving = []
                continue
            said = tuple(part for part in (node.step_id, said_of(node)) if part)
            self.boxes.append(Box(box, node.form, said, True, node.step_id))
            self._arrive(arriving, box)
            leaving = self._branches(node, box)
            arriving = (leaving or [(box, None)]) if node.continues else []
            if node.otherwise is not None:
                self._edge(box, self._errors.get(ErrorKind.ROUTING, _UNROUTED), node.otherwise, errors=True)
        return arriving

    def _branches(self, node: CompiledNode, box: str) -> list[_Leaving]:
        leaving: list[_Leaving] = []
        for branch in node.branches:
            left = self._chain(branch.nodes, [(box, branch.title)])
            if branch.output is None:
                leaving += left
            else:
                self._topic(_box_id(branch.path), branch.output, left, inside=True)
        return leaving

    def _topic(self, box: str, output: CompiledTopic, arriving: list[_Leaving], *, inside: bool) -> None:
        named = f"topic {output.topic}" + (f" (as {output.name})" if output.name != output.topic else "")
        said = (output.step_id, named)
        self.boxes.append(Box(box, NodeForm.STORE, said, inside, output.step_id, (output.topic,)))
        self._arrive(arriving, box)
        if output.dlq is not None:
            topic = output.dlq.topic
            if topic not in self._dead_letters:
                dead = self._dead_letters[topic] = f"dlq_{len(self._dead_letters)}"
                self.boxes.append(Box(dead, NodeForm.STORE, ("dead letters", f"topic {topic}"), False, None, (topic,)))
            self._edge(box, self._dead_letters[topic], "refused records", errors=True)

    def _arrive(self, arriving: list[_Leaving], box: str) -> None:
        for left, title in arriving:
            self._edge(left, box, title)

    def _edge(self, left: str, right: str, title: str | None = None, *, errors: bool = False) -> None:
        self.edges.append(Edge(left, right, title, errors))


def _box_id(path: NodePath) -> str:
    return "n" + "_".join(map(str, path))


def _errors(kinds: Iterable[ErrorKind]) -> str:
    return f"{', '.join(kind.value for kind in kinds)} errors"
