"""Whatever a flow looks like and its names hold, its plan can be explained, and each format says all of it."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import HealthCheck, assume, given, settings

from loom.streaming import StreamFlow, compile_flow
from loom.streaming.compiler import CompilationError, CompiledPlan
from loom.streaming.compiler.model import walk_nodes
from tests.streaming.compiler.generated import flows
from tests.streaming.orders import config

many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def compiled(flow: StreamFlow[Any, Any]) -> CompiledPlan:
    try:
        return compile_flow(flow, config=config())
    except CompilationError:
        assume(False)
        raise


#: an id, its brackets, and a label in which nothing of Mermaid's own stands
LABEL = r'"[^"`\\;{}<>|&]*(?:(?:#\d+;|<br/>)[^"`\\;{}<>|&]*)*"'
BOX = re.compile(rf"(?P<id>\w+)(?:\[{LABEL}\]|\[\({LABEL}\)\]|\{{{LABEL}\}}|\(\[{LABEL}\]\))")
EDGE = re.compile(rf"(?P<left>\w+) (?:-->|-\.->)(?:\|{LABEL}\|)? (?P<right>\w+)")


def boxes_and_edges(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """What a flowchart holds; fails for a line that is no line of one."""
    opening, subgraph, *lines = text.split("\n")
    assert opening == "flowchart TD"
    assert re.fullmatch(rf"    subgraph process\[{LABEL}\]", subgraph)
    boxes, edges, depth = [], [], 1
    for line in lines:
        if line == "    end":
            depth -= 1
        elif box := BOX.fullmatch(line.strip()):
            boxes.append(box["id"])
        else:
            edge = EDGE.fullmatch(line.strip())
            assert edge is not None, line
            edges.append((edge["left"], edge["right"]))
    assert depth == 0
    return boxes, edges


@many
@given(flow=flows())
def test_a_flowchart_is_well_formed_and_shows_every_node_once_and_every_way(flow: StreamFlow[Any, Any]) -> None:
    plan = compiled(flow)
    boxes, edges = boxes_and_edges(plan.explain("mermaid"))
    assert len(boxes) == len(set(boxes))
    assert {end for edge in edges for end in edge} <= {*boxes, "process"}
    nodes = list(walk_nodes(plan.nodes))
    assert {"n" + "_".join(map(str, node.path)) for node in nodes} <= set(boxes)
    reached, waiting = set[str](), ["source"]
    while waiting:
        box = waiting.pop()
        if box not in reached:
            reached.add(box)
            waiting += [right for left, right in edges if left == box]
    reached |= {right for left, right in edges if left == "process"}
    assert reached >= {box for box in boxes if not box.startswith("dlq")}


@many
@given(flow=flows())
def test_a_document_holds_every_node_and_output(flow: StreamFlow[Any, Any]) -> None:
    plan = compiled(flow)
    document = json.loads(plan.explain("json"))

    def steps(nodes: Any) -> list[str]:
        return [
            found for n in nodes for found in (n["step_id"], *(s for b in n["branches"] for s in steps(b["nodes"])))
        ]

    assert steps(document["nodes"]) == [node.step_id for node in walk_nodes(plan.nodes)]
    assert document["flow"] == plan.name


@many
@given(flow=flows())
def test_a_text_has_a_line_for_every_node(flow: StreamFlow[Any, Any]) -> None:
    plan = compiled(flow)
    text = plan.explain()
    for node in walk_nodes(plan.nodes):
        assert f"[{'.'.join(map(str, node.path))}] {node.step_id}" in text
