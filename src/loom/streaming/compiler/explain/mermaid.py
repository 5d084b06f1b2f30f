"""A plan as a Mermaid flowchart: what is read, the nodes and their branches, where everything goes.

Edges out of a node with several ways carry the titles of its branches. Any node may fail, so the routes of errors leave
the process as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from loom.streaming.compiler.explain.document import said_of, unrouted_kinds
from loom.streaming.compiler.model import CompiledNode, CompiledTopic, NodeForm, NodePath, PayloadTypes, PlanModel
from loom.streaming.errors import ErrorKind

__all__ = ["as_mermaid"]

#: a place that records leave, and the title of the way on which they do
_Leaving = tuple[str, str | None]

_PROCESS, _SOURCE, _OUTPUT, _UNROUTED = "process", "source", "output", "unrouted"
#: a label longer than this says no more
_LONGEST = 120


def as_mermaid(plan: PlanModel) -> str:
    """The plan as a flowchart from top to bottom, ready for a Markdown file or the Mermaid live editor."""
    picture = _Picture(plan)
    picture.draw()
    inside = [f"        {line}" for line in picture.inside]
    outside = [f"    {line}" for line in (*picture.outside, *picture.edges)]
    opening = f'    subgraph {_PROCESS}["{_text(plan.name)}"]'
    return "\n".join(["flowchart TD", opening, *inside, "    end", *outside])


class _Form(NamedTuple):
    """How a box is drawn."""

    left: str
    right: str


_FORMS = {
    NodeForm.BOX: _Form("[", "]"),
    NodeForm.STORE: _Form("[(", ")]"),
    NodeForm.CHOICE: _Form("{", "}"),
    NodeForm.END: _Form("([", "])"),
}


class _Picture:
    """A flowchart in the making."""

    def __init__(self, plan: PlanModel) -> None:
        self._plan = plan
        self.inside: list[str] = []
        self.outside: list[str] = []
        self.edges: list[str] = []
        self._dead_letters: dict[str, str] = {}
        self._errors: dict[ErrorKind, str] = {}

    def draw(self) -> None:
        """Draw the whole plan."""
        plan = self._plan
        source = plan.source
        reads = f"{PayloadTypes(source.payloads)} from {', '.join(source.topics)}"
        self._box(
            self.outside,
            _SOURCE,
            NodeForm.STORE,
            source.name,
            reads,
            f"{source.mode.label}, group {source.settings.group_id}",
        )
        self._draw_errors()
        leaving = self._chain(plan.nodes, [(_SOURCE, None)])
        if plan.output is not None:
            self._topic(self.outside, _OUTPUT, plan.output, leaving)

    def _draw_errors(self) -> None:
        plan = self._plan
        for number, route in enumerate(plan.error_routes):
            box = f"errors_{number}"
            self._topic(self.outside, box, route.output, [])
            self._edge(_PROCESS, box, _errors(route.kinds), dotted=True)
            self._errors.update(dict.fromkeys(route.kinds, box))
        unrouted = unrouted_kinds(plan)
        if unrouted:
            said = "the run stops" if plan.unrouted == "fail" else "dropped, counted and logged"
            self._box(self.outside, _UNROUTED, NodeForm.END, said)
            self._edge(_PROCESS, _UNROUTED, _errors(unrouted), dotted=True)

    def _chain(self, nodes: Iterable[CompiledNode], arriving: list[_Leaving]) -> list[_Leaving]:
        """Draw nodes one after the other; returns where records leave the last one."""
        for node in nodes:
            box = _box_id(node.path)
            if node.output is not None:
                self._topic(self.inside, box, node.output, arriving)
                arriving = []
                continue
            self._box(self.inside, box, node.form, node.step_id, said_of(node))
            self._arrive(arriving, box)
            leaving = self._branches(node, box)
            arriving = (leaving or [(box, None)]) if node.continues else []
            if node.otherwise is not None:
                self._edge(box, self._errors.get(ErrorKind.ROUTING, _UNROUTED), node.otherwise, dotted=True)
        return arriving

    def _branches(self, node: CompiledNode, box: str) -> list[_Leaving]:
        leaving: list[_Leaving] = []
        for branch in node.branches:
            left = self._chain(branch.nodes, [(box, branch.title)])
            if branch.output is None:
                leaving += left
            else:
                self._topic(self.inside, _box_id(branch.path), branch.output, left)
        return leaving

    def _topic(self, lines: list[str], box: str, output: CompiledTopic, arriving: list[_Leaving]) -> None:
        named = f"topic {output.topic}" + (f" (as {output.name})" if output.name != output.topic else "")
        self._box(lines, box, NodeForm.STORE, output.step_id, named)
        self._arrive(arriving, box)
        if output.dlq is not None:
            topic = output.dlq.topic
            if topic not in self._dead_letters:
                self._dead_letters[topic] = f"dlq_{len(self._dead_letters)}"
                self._box(self.outside, self._dead_letters[topic], NodeForm.STORE, "dead letters", f"topic {topic}")
            self._edge(box, self._dead_letters[topic], "refused records", dotted=True)

    def _arrive(self, arriving: list[_Leaving], box: str) -> None:
        for left, title in arriving:
            self._edge(left, box, title)

    def _box(self, lines: list[str], box: str, form: NodeForm, *said: str) -> None:
        label = "<br/>".join(_text(part) for part in said if part)
        left, right = _FORMS[form]
        lines.append(f'{box}{left}"{label}"{right}')

    def _edge(self, left: str, right: str, title: str | None = None, *, dotted: bool = False) -> None:
        arrow = "-.->" if dotted else "-->"
        label = f'|"{_text(title)}"|' if title else ""
        self.edges.append(f"{left} {arrow}{label} {right}")


def _box_id(path: NodePath) -> str:
    return "n" + "_".join(map(str, path))


def _errors(kinds: Iterable[ErrorKind]) -> str:
    return f"{', '.join(kind.value for kind in kinds)} errors"


#: Letters, digits and marks that mean nothing to Mermaid inside quotes. Anything else is written as its number, which Mermaid
#: turns back: a quote would end the label, a backslash with an n would break the line, `**` would be bold.
_MEANS_SOMETHING = re.compile(r"[^\w→ ,:()\[\]/'=!?+.-]")
#: Mermaid takes this for the beginning of a list, which it refuses to draw.
_LIST = re.compile(r"^(\d+)\.|^([-+])(?= )")


def _text(text: str) -> str:
    """A label's text, escaped.

    >>> _text('payload.name == "x"')
    'payload.name == #34;x#34;'
    """
    text = " ".join(text.replace("->", "→").split())
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    text = _MEANS_SOMETHING.sub(lambda found: f"#{ord(found[0])};", text)
    return _LIST.sub(lambda found: f"{found[1]}#46;" if found[1] else f"#{ord(found[2])};", text)
