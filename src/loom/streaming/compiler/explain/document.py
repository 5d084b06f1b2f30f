"""A plan as data: a tree with a documented, versioned schema, written as JSON for other programs.

Fields are only ever added; a change that breaks a reader raises `VERSION`. `msgspec.json.schema(PlanDocument)` is the
JSON schema, and `msgspec.json.decode(text, type=PlanDocument)` reads a document back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import (
    CompiledBranch,
    CompiledNode,
    CompiledProducer,
    CompiledSource,
    CompiledTopic,
    PayloadTypes,
    PlanModel,
)
from loom.streaming.errors import ErrorKind

__all__ = [
    "VERSION",
    "BranchDocument",
    "ErrorRouteDocument",
    "NodeDocument",
    "OutputDocument",
    "PlanDocument",
    "ProducerDocument",
    "Shapes",
    "SourceDocument",
    "UnroutedDocument",
    "WarningDocument",
    "as_json",
    "document_of",
]

VERSION: Final = 1

#: names of payload types; `None` where the author left them open
_Types = tuple[str, ...] | None


class SourceDocument(LoomFrozenStruct):
    """Where records come from."""

    #: the logical name, and the physical topics
    name: str
    topics: tuple[str, ...]
    payloads: tuple[str, ...]
    #: `payload`, `labelled` or `dead letters`
    reads: str
    format: str
    #: an envelope is recognised beside the format
    recognises_envelope: bool
    shape: str
    group_id: str


class OutputDocument(LoomFrozenStruct):
    """A topic that is written to."""

    #: the logical name, and the physical topic
    name: str
    topic: str
    step_id: str
    path: tuple[int, ...]
    format: str
    headers: str
    payloads: _Types
    #: what the key policy promises; `None` where the incoming key is kept
    partitioning: str | None
    #: where records go that the broker refuses permanently
    dlq: OutputDocument | None
    #: the number of the producer that writes it; outputs of one number share a client
    producer: int


class ProducerDocument(LoomFrozenStruct):
    """A producer client of the process."""

    number: int
    brokers: tuple[str, ...]
    #: the physical topics that it writes to, in order
    topics: tuple[str, ...]


class Shapes(LoomFrozenStruct):
    """What a node receives and what leaves it: `record`, `many`, `batch` or `none`."""

    arriving: str = msgspec.field(name="in")
    leaving: str = msgspec.field(name="out")


class BranchDocument(LoomFrozenStruct):
    """One way out of a node."""

    label: str
    title: str
    path: tuple[int, ...]
    nodes: tuple[NodeDocument, ...]
    #: where the branch ends when its nodes do not end it
    output: OutputDocument | None


class NodeDocument(LoomFrozenStruct):
    """One node, with what is inside it."""

    path: tuple[int, ...]
    step_id: str
    #: `step`, `into_topic`, `into_sink`, `router`, `fork`, `broadcast`, `explode`, `expand_routes`, `collect`, `for_each`,
    #: `drain`; more with later versions of Loom
    kind: str
    #: how a step is called: `function`, `record`, `expand`, `batch` or `batch expand`; `None` for other nodes
    step_kind: str | None
    shapes: Shapes
    accepts: _Types
    returns: _Types
    #: half a line for a person
    summary: str
    branches: tuple[BranchDocument, ...]
    #: what becomes of a record that no branch takes, where that needs saying
    otherwise: str | None
    output: OutputDocument | None
    #: the class of a sink of the author's own
    sink: str | None


class ErrorRouteDocument(LoomFrozenStruct):
    """Where errors of these kinds go."""

    kinds: tuple[str, ...]
    output: OutputDocument


class UnroutedDocument(LoomFrozenStruct):
    """Kinds of errors that the flow routes nowhere, and what such a record does: `fail` the run, or `drop`."""

    kinds: tuple[str, ...]
    then: str


class WarningDocument(LoomFrozenStruct):
    """What the compiler wants the author to know."""

    code: str
    where: str
    path: tuple[int, ...]
    message: str
    expected: str | None
    found: str | None
    remedy: str | None


class PlanDocument(LoomFrozenStruct):
    """A whole plan."""

    version: int
    flow: str
    #: `at_least_once`, `at_most_once`, `exactly_once`, or `None`: best effort, by the client's auto-commit
    delivery: str | None
    source: SourceDocument
    nodes: tuple[NodeDocument, ...]
    output: OutputDocument | None
    errors: tuple[ErrorRouteDocument, ...]
    unrouted: UnroutedDocument
    warnings: tuple[WarningDocument, ...]
    producers: tuple[ProducerDocument, ...]


def as_json(plan: PlanModel) -> str:
    """The plan as JSON, two blanks for each level."""
    return msgspec.json.format(msgspec.json.encode(document_of(plan)), indent=2).decode()


def document_of(plan: PlanModel) -> PlanDocument:
    """The plan as plain data."""
    return PlanDocument(
        VERSION,
        plan.name,
        plan.source.mode.delivery,
        _source(plan.source),
        _nodes(plan.nodes),
        _output(plan.output),
        tuple(
            ErrorRouteDocument(tuple(kind.value for kind in route.kinds), _topic(route.output))
            for route in plan.error_routes
        ),
        UnroutedDocument(tuple(kind.value for kind in unrouted_kinds(plan)), plan.unrouted),
        tuple(
            WarningDocument(w.code.value, w.where, w.path, w.message, w.expected, w.found, w.remedy)
            for w in plan.warnings
        ),
        tuple(_producer(producer, plan.topics()) for producer in plan.producers),
    )


def _source(source: CompiledSource) -> SourceDocument:
    return SourceDocument(
        source.name,
        source.topics,
        PayloadTypes(source.payloads).names,
        source.reads.value,
        str(source.wire_format),
        source.recognise_envelope,
        source.shape.value,
        source.settings.group_id,
    )


def _nodes(nodes: Sequence[CompiledNode]) -> tuple[NodeDocument, ...]:
    return tuple(_node(node) for node in nodes)


def _node(node: CompiledNode) -> NodeDocument:
    return NodeDocument(
        node.path,
        node.step_id,
        kind_of(type(node)),
        node.step_kind.value if node.step_kind is not None else None,
        Shapes(node.in_shape.value, node.out_shape.value),
        _types(node.accepts),
        _types(node.returns),
        said_of(node),
        tuple(_branch(branch) for branch in node.branches),
        node.otherwise,
        _output(node.output),
        type(node.sink).__qualname__ if node.sink is not None else None,
    )


def _branch(branch: CompiledBranch) -> BranchDocument:
    return BranchDocument(branch.label, branch.title, branch.path, _nodes(branch.nodes), _output(branch.output))


def _output(output: CompiledTopic | None) -> OutputDocument | None:
    return None if output is None else _topic(output)


def _topic(output: CompiledTopic) -> OutputDocument:
    return OutputDocument(
        output.name,
        output.topic,
        output.step_id,
        output.path,
        str(output.settings.format),
        output.settings.headers.value,
        _types(output.payloads),
        output.partitioning.guarantee.value if output.partitioning is not None else None,
        _output(output.dlq),
        output.producer.index,
    )


def _producer(producer: CompiledProducer, written: Sequence[CompiledTopic]) -> ProducerDocument:
    topics = {output.topic for output in written if output.producer == producer}
    return ProducerDocument(producer.index, producer.properties.brokers, tuple(sorted(topics)))


def _types(payloads: PayloadTypes) -> _Types:
    return payloads.names if payloads.known else None


def kind_of(node_class: type[CompiledNode]) -> str:
    """What kind of node it is: the name of its class, `CompiledForEach` as `for_each`."""
    name = node_class.__name__.removeprefix("Compiled")
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def said_of(node: CompiledNode) -> str:
    """The summary of a node, without its id."""
    return node.summary.lstrip(" ,:->")


def unrouted_kinds(plan: PlanModel) -> list[ErrorKind]:
    """The kinds of errors that no route takes."""
    routed = {kind for route in plan.error_routes for kind in route.kinds}
    return [kind for kind in ErrorKind if kind not in routed]
