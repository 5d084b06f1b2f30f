"""A plan as text for a person: what is read, what happens, where everything goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loom.streaming.compiler.model import CompiledNode, CompiledSource, CompiledTopic, PayloadTypes, PlanModel, Reads

__all__ = ["as_text"]

_BY_CLIENT = " (the client's auto-commit)"


def as_text(plan: PlanModel) -> str:
    """The plan, a line for each node."""
    return "\n".join(_lines(plan))


def _lines(plan: PlanModel) -> Iterator[str]:
    source = plan.source
    yield f"flow {plan.name}"
    reads = f"{' | '.join(source.topics)} as {_reads(source)} ({source.wire_format}"
    reads += ", or envelope)" if source.recognise_envelope else ")"
    yield f"  source  {source.name}: {reads}, group {source.settings.group_id}"
    yield f"          delivery: {source.mode.summary}{_BY_CLIENT if source.mode.commits_by_client else ''}"
    yield "  process"
    yield from _nodes(plan.nodes, "    ")
    if plan.output is not None:
        yield f"  output  {_topic(plan.output)}"
    for route in plan.error_routes:
        yield f"  errors  {', '.join(kind.value for kind in route.kinds)} -> {_topic(route.output)}"
    yield f"  unrouted errors: {plan.unrouted}"
    for warning in plan.warnings:
        yield f"  {warning}"


def _reads(source: CompiledSource) -> str:
    payloads = str(PayloadTypes(source.payloads))
    if source.reads is Reads.DEAD_LETTERS:
        return "dead letters" + (f" of {payloads}" if source.payload is not Any else "")
    return payloads


def _nodes(nodes: tuple[CompiledNode, ...], indent: str) -> Iterator[str]:
    for node in nodes:
        path = ".".join(map(str, node.path))
        summary = f" -> {_topic(node.output)}" if node.output is not None else node.summary
        yield f"{indent}[{path}] {node.step_id}{summary}"
        for branch in node.branches:
            yield f"{indent}  {branch.title}:"
            yield from _nodes(branch.nodes, indent + "    ")
            if branch.output is not None:
                where = ".".join(map(str, branch.path))
                yield f"{indent}    [{where}] {branch.output.step_id} -> {_topic(branch.output)}"
        if node.otherwise is not None:
            yield f"{indent}  otherwise: {node.otherwise}"


def _topic(output: CompiledTopic) -> str:
    named = f"topic {output.topic}" + (f" (as {output.name})" if output.name != output.topic else "")
    text = f"{named}, {output.settings.format}, headers {output.settings.headers.value}"
    return text + (f", refused records -> {output.dlq.topic}" if output.dlq else "")
