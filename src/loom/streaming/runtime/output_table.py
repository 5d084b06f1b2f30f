"""The plan's ways out, as a table: each slot is a topic or a sink of the caller's. Made once per build, opens nothing.

Precedence: what is given explicitly, then what registered sinks bind, then what the flow declares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from loom.core.choices import choice
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import CompiledTopic, NodePath
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.formats.registry import find_format
from loom.streaming.kafka.dead_letter import dead_letter_writer
from loom.streaming.runtime.stages.failures import ErrorTarget
from loom.streaming.runtime.stages.slots import OutputSlots

__all__ = ["CustomOutput", "OutputTable", "TopicOutput", "output_table_of"]


class TopicOutput(LoomFrozenStruct):
    """A slot that is a topic."""

    output: CompiledTopic
    is_errors: bool


class CustomOutput(LoomFrozenStruct):
    """A slot that is a sink: a Bytewax sink or an `IntoSink`."""

    name: str
    sink: Any
    #: what an `IntoSink` is built with: the config of the flow for a node, nothing for sinks that were made with what they need
    config: Any = None


Outlet: TypeAlias = TopicOutput | CustomOutput


class OutputTable(LoomFrozenStruct):
    """Every way out of a plan, by slot, and what the stages must know of them."""

    table: tuple[Outlet, ...]
    slots: OutputSlots

    @property
    def has_sinks(self) -> bool:
        """Whether something is written that is no topic, and so takes part in no transaction."""
        return any(isinstance(outlet, CustomOutput) for outlet in self.table)

    def topics(self) -> dict[int, TopicOutput]:
        """The slots that are topics."""
        return {slot: outlet for slot, outlet in enumerate(self.table) if isinstance(outlet, TopicOutput)}

    def sinks(self) -> list[Any]:
        """The sinks of the caller's own."""
        return [outlet.sink for outlet in self.table if isinstance(outlet, CustomOutput)]

    def dead_letters(self) -> list[CompiledTopic]:
        """The topics of errors and of refused records."""
        topics = self.topics().values()
        refused = [outlet.output.dlq for outlet in topics if outlet.output.dlq is not None]
        return [*(outlet.output for outlet in topics if outlet.is_errors), *refused]


def output_table_of(
    plan: CompiledPlan,
    *,
    sink: Any | None,
    terminal_sinks: Mapping[NodePath, Any] | None,
    error_sinks: Mapping[ErrorKind, Any] | None,
    audits: Mapping[str, Any] | None = None,
) -> OutputTable:
    """The table for a plan and its overrides; `audits` get a copy of every output message, each under its name.

    Raises `ValueError` for an override that replaces nothing.
    """
    errors_by_kind = {choice(ErrorKind, kind, "error_sinks"): found for kind, found in (error_sinks or {}).items()}
    table: list[Outlet] = []
    topic_slots: dict[tuple[Any, ...], int] = {}

    def topic_slot(output: CompiledTopic, *, is_errors: bool) -> int:
        # One slot however many nodes write to a topic, so that it is counted and named once.
        dlq = output.dlq.topic if output.dlq is not None else None
        key = (output.topic, output.producer.index, dlq, is_errors)
        if key not in topic_slots:
            topic_slots[key] = len(table)
            table.append(TopicOutput(output, is_errors))
        return topic_slots[key]

    def hosted_slot(name: str, hosted: Any, config: Any = None) -> int:
        table.append(CustomOutput(name, hosted, config))
        return len(table) - 1

    outputs: dict[NodePath, int] = {}
    hosted: set[int] = set()
    if sink is not None:
        if plan.output is None:
            raise ValueError(f"sink=… replaces the flow's output, and {plan.name!r} has none; use terminal_sinks")
        outputs[()] = hosted_slot("output", sink)
        hosted.add(outputs[()])
    elif plan.output is not None:
        outputs[()] = topic_slot(plan.output, is_errors=False)
    overrides = dict(terminal_sinks or {})
    for path, output in plan.terminal_sinks.items():
        if path in overrides:
            outputs[path] = hosted_slot(".".join(map(str, path)), overrides.pop(path))
            hosted.add(outputs[path])
        else:
            outputs[path] = topic_slot(output, is_errors=False)
    for path, storage in plan.terminal_storage_sinks.items():
        if path in overrides:
            outputs[path] = hosted_slot(".".join(map(str, path)), overrides.pop(path))
        else:
            outputs[path] = hosted_slot(storage.step_id, storage.sink, storage.config)
        hosted.add(outputs[path])
    if overrides:
        known = ", ".join(map(str, (*plan.terminal_sinks, *plan.terminal_storage_sinks))) or "none"
        strange = ", ".join(map(repr, overrides))
        raise ValueError(f"terminal_sinks names paths without a terminal: {strange}; the terminals: {known}")
    errors = _error_targets(plan, errors_by_kind, topic_slot, hosted_slot)
    copies = tuple(hosted_slot(f"audit {name}", audit) for name, audit in (audits or {}).items())
    names = tuple(o.output.topic if isinstance(o, TopicOutput) else o.name for o in table)
    return OutputTable(tuple(table), OutputSlots(outputs, frozenset(hosted), errors, names, copies))


def _error_targets(
    plan: CompiledPlan, sinks: dict[ErrorKind, Any], topic_slot: Any, hosted_slot: Any
) -> dict[ErrorKind, ErrorTarget]:
    targets = {}
    routes = {kind: route.output for route in plan.error_routes for kind in route.kinds}
    by_sink: dict[int, int] = {}
    kinds_of: dict[int, list[str]] = {}
    for kind in ErrorKind:
        if kind in sinks:
            kinds_of.setdefault(id(sinks[kind]), []).append(kind.value)
    for kind in ErrorKind:
        if kind in sinks:
            found = sinks[kind]
            if id(found) not in by_sink:
                by_sink[id(found)] = hosted_slot(f"{', '.join(kinds_of[id(found)])} errors", found)
            targets[kind] = ErrorTarget(by_sink[id(found)], None)
        elif kind in routes:
            output = routes[kind]
            written = output.settings.format
            targets[kind] = ErrorTarget(
                topic_slot(output, is_errors=True),
                dead_letter_writer(written),
                original=find_format(written).whole_errors is None,
            )
    return targets
