"""A flow and its config become an immutable, validated plan, or one error that says everything that is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from loom.core.config import ConfigContext
from loom.core.config.keys import nearest, read_as
from loom.streaming.compiler.catalogue import Code, CompilationError
from loom.streaming.compiler.exactly_once import check_exactly_once, check_waits, warn_unordered
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import (
    CompiledErrorRoute,
    CompiledSource,
    CompiledTopic,
    PayloadTypes,
    StorageSink,
    walk_nodes,
)
from loom.streaming.compiler.names import ERRORS, OUTPUT, RESERVED, child_id, into_id
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.compiler.registry import component_of
from loom.streaming.compiler.replays import warn_replays
from loom.streaming.compiler.signatures import UNKNOWN, payloads_of, together
from loom.streaming.compiler.step_memory import warn_unforgettable
from loom.streaming.compiler.topics import TopicResolver
from loom.streaming.compiler.unrouted import warn_unrouted
from loom.streaming.compiler.walk import ProcessCompiler, StreamType, named
from loom.streaming.flow import StreamFlow
from loom.streaming.kafka.settings import broker_list
from loom.streaming.nodes.boundary import FromMultiTypeTopic, FromTopic, IntoTopic
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.process import Process

__all__ = ["compile_flow"]

#: top-level sections that other parts of Loom read
_KNOWN_SECTIONS = ("kafka", "streaming", "observability")


def compile_flow(
    flow: StreamFlow[Any, Any],
    *,
    config: ConfigContext | Mapping[str, Any],
    beside: Iterable[StreamFlow[Any, Any]] = (),
) -> CompiledPlan:
    """Compile a flow. Opens nothing and needs no broker.

    >>> kafka = {"consumer": {"brokers": ["localhost:9092"], "group_id": "orders"}, "producer": {"brokers": ["localhost:9092"]}}
    >>> plan = compile_flow(flow, config={"kafka": kafka})
    >>> plan.source.topics, plan.output.topic
    (('orders.raw',), 'orders.priced')

    Args:
        flow: the flow.
        config: the whole config.
        beside: other flows of the program; a replay of dead letters that goes in a circle through one of them is a warning.

    Returns:
        The plan; `plan.explain()` prints it.

    Raises:
        CompilationError: with every problem found: config, bindings, shapes, payload types, ends, names.
    """
    context = config if isinstance(config, ConfigContext) else ConfigContext.from_dict(config)
    issues = Issues()
    topics = TopicResolver(context, issues)
    walk = ProcessCompiler(
        component_of, context, topics, issues, taken=[child_id(flow.name, name) for name in RESERVED]
    )

    if not flow.name.strip():
        issues.error(
            Code.NAME_INVALID,
            "the flow has no name",
            where="flow",
            remedy='write StreamFlow("orders", …): logs, errors and the ids of steps and writers begin with it',
        )
    source = None
    arriving = UNKNOWN
    # What type checkers know, an author without one may not.
    declared: object = flow.source
    if isinstance(declared, FromTopic):
        source = topics.source(declared)
        arriving = payloads_of(declared.payload)
    elif isinstance(declared, FromMultiTypeTopic):
        source = topics.source(declared)
        arriving = together(payloads_of(payload) for payload in declared.payloads)
    else:
        issues.error(
            Code.NODE_UNKNOWN,
            f"{declared!r} is no source",
            where="source",
            expected="FromTopic(…)",
            remedy="write StreamFlow(source=FromTopic(…))",
        )
    begun = StreamType(StreamShape.RECORD, arriving, flow.name)
    process: object = flow.process
    if isinstance(process, Process):
        nodes, left = walk.nodes(process, (), begun)
    else:
        nodes, left = (), replace(begun, payloads=UNKNOWN, behind_refused=True)
        issues.error(
            Code.NODE_UNKNOWN,
            f"{named(process)} is no process",
            expected="Process(…)",
            remedy="write StreamFlow(process=Process(…)) with the nodes in their order",
        )
    output = _output(flow, topics, issues, left)
    routes = _error_routes(flow, topics)
    topics.finish()
    written = [*([output] if output else []), *walk.terminals.values(), *(route.output for route in routes)]
    if source is not None:
        _check_loops(source, written, issues)
        replayed = [*([output] if output else []), *walk.terminals.values()]
        warn_replays(source, replayed, beside, topics.kafka, issues)
        warn_unrouted((kind for route in routes for kind in route.kinds), flow.unrouted, issues)
        if source.mode.transaction:
            outputs = [target for output in written for target in (output, output.dlq) if target is not None]
            check_exactly_once(source, outputs, walk.storage, issues)
            check_waits(source, nodes, outputs, issues)
            warn_unordered(walk_nodes(nodes), issues)
            warn_unforgettable(source, nodes, outputs, issues)
    for section in (*_KNOWN_SECTIONS, *_sections_of_sinks(walk.storage.values())):
        context.mark_read(section)
    for section in context.unread_sections():
        issues.warn(
            Code.CONFIG_UNREAD,
            f"nothing reads the section {section!r}",
            where="config",
            remedy=_meant(section) or f"bind a step to it with from_config({section!r}), or remove it",
        )
    if issues.errors or source is None:
        raise CompilationError(flow.name, issues.errors)
    return CompiledPlan(
        name=flow.name,
        source=source,
        nodes=nodes,
        output=output,
        error_routes=routes,
        needs_async_bridge=any(node.awaits for node in walk_nodes(nodes)),
        terminal_sinks=walk.terminals,
        terminal_storage_sinks=walk.storage,
        unrouted=flow.unrouted,
        warnings=issues.warnings,
    )


def _meant(section: str) -> str | None:
    """What to do about a section that is most likely one of ours, written otherwise."""
    if section in ("consumer", "producer", "consumers", "producers"):
        return f"indent it under `kafka:`, as kafka.{section}"
    if section in (str(True), str(False)):
        return read_as(section == str(True))
    close = nearest(section, _KNOWN_SECTIONS)
    return f"did you mean {close!r}?" if close is not None else None


def _output(
    flow: StreamFlow[Any, Any], topics: TopicResolver, issues: Issues, left: StreamType
) -> CompiledTopic | None:
    if left.shape is StreamShape.NONE:
        if flow.output is not None:
            issues.error(
                Code.TWO_ENDS,
                "the process ends in a terminal, so nothing reaches the flow's output",
                where="output",
                remedy="remove output=…, or the terminal",
            )
        return None
    declared: object = flow.output
    if declared is None:
        if left.behind_refused:
            return None
        issues.error(
            Code.NO_END,
            "the process has no end and the flow no output; its records would go nowhere",
            where="output",
            remedy="give the flow output=IntoTopic(…), or end the process with a terminal",
        )
        return None
    if not isinstance(declared, IntoTopic):
        issues.error(
            Code.NODE_UNKNOWN,
            f"{declared!r} is no output",
            where="output",
            expected="IntoTopic(…)",
            remedy="write StreamFlow(output=IntoTopic(…))",
        )
        return None
    return topics.output(
        declared, (), "output", child_id(flow.name, OUTPUT), left.payloads, left.known_shape, mixed=left.mixed
    )


def _error_routes(flow: StreamFlow[Any, Any], topics: TopicResolver) -> tuple[CompiledErrorRoute, ...]:
    routes = []
    for route in flow.error_routes:
        step_id = into_id(child_id(flow.name, ERRORS), route.output.name)
        output = topics.bare_output(route.output, (), "errors", step_id, PayloadTypes((), known=False))
        if output is not None:
            routes.append(CompiledErrorRoute(route.kind_set, output))
    return tuple(routes)


def _sections_of_sinks(storage: Iterable[StorageSink]) -> Iterator[str]:
    """The sections that storage sinks say they will read when they are opened."""
    for declared in storage:
        section = getattr(declared.sink, "config_path", None)
        if isinstance(section, str):
            yield section


def _check_loops(source: CompiledSource, written: list[CompiledTopic], issues: Issues) -> None:
    for output in written:
        for target in (output, output.dlq):
            if target is None or target.topic not in source.topics:
                continue
            if set(broker_list(source.settings.brokers)) & set(broker_list(target.settings.brokers)):
                issues.error(
                    Code.TOPIC_LOOP,
                    f"the flow would write to {target.topic!r}, which it reads",
                    where=target.where,
                    path=target.path,
                    remedy="write to another topic: what is read again is written again, without end",
                )
            else:
                # A copy from one cluster to another; only its author knows whether these are two.
                issues.warn(
                    Code.TOPIC_LOOP,
                    f"the flow reads {target.topic!r} and writes to a topic of that name on other brokers",
                    where=target.where,
                    path=target.path,
                    remedy="make sure that these brokers are another cluster, else what is written is read again",
                )
