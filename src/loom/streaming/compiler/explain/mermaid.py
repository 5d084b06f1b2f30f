"""A plan as a Mermaid flowchart: its picture, drawn with Mermaid's boxes and arrows."""

from __future__ import annotations

import re
from typing import NamedTuple

from loom.streaming.compiler.explain.picture import PROCESS, Box, Edge, picture_of
from loom.streaming.compiler.model import NodeForm, PlanModel

__all__ = ["as_mermaid"]

#: a label longer than this says no more
_LONGEST = 120


def as_mermaid(plan: PlanModel) -> str:
    """The plan as a flowchart from top to bottom, ready for a Markdown file or the Mermaid live editor."""
    picture = picture_of(plan)
    inside = [f"        {_box(box)}" for box in picture.boxes if box.inside]
    outside = [f"    {_box(box)}" for box in picture.boxes if not box.inside]
    edges = [f"    {_edge(edge)}" for edge in picture.edges]
    opening = f'    subgraph {PROCESS}["{_text(plan.name)}"]'
    return "\n".join(["flowchart TD", opening, *inside, "    end", *outside, *edges])


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


def _box(box: Box) -> str:
    label = "<br/>".join(_text(part) for part in box.said)
    left, right = _FORMS[box.form]
    return f'{box.id}{left}"{label}"{right}'


def _edge(edge: Edge) -> str:
    arrow = "-.->" if edge.errors else "-->"
    label = f'|"{_text(edge.title)}"|' if edge.title else ""
    return f"{edge.source} {arrow}{label} {edge.target}"


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
