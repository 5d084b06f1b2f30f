"""Builds a stage from the end of each chain to its head, because a closure holds the next one.

The component of a node says how it becomes closures; this file knows none of them. Runs once per stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from loom.core.observability import ObservabilityRuntime
from loom.streaming.compiler.model import (
    CompiledBranch,
    CompiledNode,
    CompiledTopic,
    NodePath,
    Reads,
    StepId,
    walk_nodes,
)
from loom.streaming.compiler.names import OUTPUT, SOURCE, child_id
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorEnvelope, ErrorKind
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.message import Message
from loom.streaming.metrics import Counts
from loom.streaming.runtime.error_log import ErrorLog
from loom.streaming.runtime.stages.codegen import CodeWriter, Emitter, build_function
from loom.streaming.runtime.stages.failures import Attempts, Fail, Failures
from loom.streaming.runtime.stages.keyed import keyed
from loom.streaming.runtime.stages.lazy_message import message_class
from loom.streaming.runtime.stages.node_input import NOWHERE, Ancestors, ChildIndex, NodeInput, Receive, node_input
from loom.streaming.runtime.stages.node_timer import NodeTimer, timed_input
from loom.streaming.runtime.stages.outputs import Noted, build_audit, build_hosted
from loom.streaming.runtime.stages.replay import limited
from loom.streaming.runtime.stages.slots import OutputSlots
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.stages.stage_io import Result

__all__ = ["BuildNode", "Provides", "StageBuilder", "Suspend"]


class Provides(Protocol):
    """The dependencies of a scope, for the steps inside it."""

    def bind(self, function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
        """The function with these dependencies; they are looked up at each call."""


class StageBuilder:
    """What the builder of a node receives: the stage, and the means to build everything around the node."""

    def __init__(
        self,
        builder_of: Callable[[type[CompiledNode]], BuildNode],
        plan: CompiledPlan,
        slots: OutputSlots,
        view: RecordAccessor,
        counts: Counts,
        stage: Stage,
        log_drop: Callable[[ErrorEnvelope[Any]], None],
        error_log: ErrorLog,
        observability: ObservabilityRuntime | None = None,
        timer: NodeTimer | None = None,
        message: Callable[[Any, Any], Message[Any]] | None = None,
    ) -> None:
        self.builder_of = builder_of
        #: told of batches that nodes collect
        self.observability = observability or ObservabilityRuntime.noop()
        self._timer = timer
        self.log_drop = log_drop
        self.error_log = error_log
        self.plan = plan
        self.view = view
        self.counts = counts
        self.stage = stage
        self.slots = slots
        #: what the steps are given that are built now
        self.provides: Provides | None = None
        #: makes a message whose metadata is built on first access
        self.message: Callable[[Any, Any], Message[Any]] = message or message_class(view)
        self._failures = Failures(
            plan.name, slots.errors, plan.unrouted, view, counts, self._emitter, log_drop, error_log
        )
        self._cells: dict[NodePath, ChildIndex] = {}
        self._entries: dict[NodePath, NodeInput] = {}
        #: how nodes, and outputs after them, are written into the loop
        self._emitters: dict[NodePath, Emitter] = {}
        #: the same nodes as functions
        self.functions: dict[NodePath, Receive] = {}
        self._step_ids = {node.path: node.step_id for node in walk_nodes(plan.nodes)}
        #: by slot, the ways on which records reach it
        self._ways: dict[int, set[tuple[NodePath, ...]]] = {}

    def build(self) -> tuple[NodeInput, Emitter, Fail]:
        """Build every node. Returns the way in, the same as code for the loop, and the way out of what does not decode."""
        plan, stage = self.plan, self.stage
        nodes = list(walk_nodes(plan.nodes))
        stage.prepare(
            self._failures,
            multiplies=any(node.multiplies for node in nodes) or bool(self.slots.audits),
            notes_children=any(node.multiplies for node in nodes) and any(node.gathers for node in nodes),
            waits=any(node.waits for node in nodes),
            outputs={*self.slots.outputs.values(), *self.slots.audits},
        )
        end = None
        above = NOWHERE
        for node in plan.nodes:
            above = self._below(node, above)
        if plan.output is not None:
            end = self.output(plan.output, (), above)
        entry = self.chain(plan.nodes, end, NOWHERE)
        undecoded = self.fail(child_id(plan.name, SOURCE), (), NOWHERE, kind=ErrorKind.WIRE)
        # Built tail first, so what is nearest to the source comes last.
        stage.flushes.reverse()
        stage.room.reverse()
        if stage.gate is not None:
            stage.gate.hold(self._held_back())
        return entry, lambda code: self.write_chain(code, plan.nodes, end, ()), undecoded

    def chain(self, nodes: tuple[CompiledNode, ...], end: NodeInput | None, above: Ancestors) -> NodeInput:
        """Nodes one after the other; `end` follows the last one, unless that ends the stream."""
        places = [above]
        for node in nodes:
            places.append(self._below(node, places[-1]))
        after = end
        for node, place in zip(reversed(nodes), reversed(places[:-1]), strict=True):
            flushes = len(self.stage.flushes)
            after = self.builder_of(type(node))(self, node, after, place)
            if self._timer is not None:
                after = self._timed(node, after, flushes, self._timer)
            self._entries[node.path] = after
        if after is None:
            raise ValueError("a process without nodes and without an output")
        return after

    def _timed(self, node: CompiledNode, entry: NodeInput, flushes: int, timer: NodeTimer) -> NodeInput:
        """A node that tells the timer when records come to it, also those that it has gathered."""
        number, own = timer.number(node.step_id), self.stage.flushes

        def timed(flush: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                if timer.on:
                    timer.lap(number, 0)
                flush()

            return run

        own[flushes:] = map(timed, own[flushes:])
        return entry if node.path in self.functions else timed_input(timer, number, entry)

    def _lap(self, code: CodeWriter, step_id: StepId) -> None:
        """Write that records come to a node here."""
        if code.lap is not None:
            code.lap(code, step_id)
        elif self._timer is not None and not code.fuses:
            lap = f"{code.name('lap', self._timer.lap)}({self._timer.number(step_id)})"
            code.line(f"if {code.name('timer', self._timer)}.on:", f"    {lap}")

    def branches(
        self, branches: Sequence[CompiledBranch], end: NodeInput | None, places: Sequence[Ancestors]
    ) -> list[NodeInput]:
        """The ways out of a node, each below its place. The last is built first, as the tail of a chain is."""
        entries = [
            self.branch(branch, end, place) for branch, place in zip(reversed(branches), reversed(places), strict=True)
        ]
        return entries[::-1]

    def branch(self, branch: CompiledBranch, end: NodeInput | None, above: Ancestors) -> NodeInput:
        """One way out of a node, into `end` where it neither ends itself nor has an output."""
        if branch.output is not None:
            below = above
            for node in branch.nodes:
                below = self._below(node, below)
            end = self.output(branch.output, branch.path, below)
        return self.chain(branch.nodes, end, above)

    def output(self, output: CompiledTopic, path: NodePath, above: Ancestors) -> NodeInput:
        """A topic, or the sink that has taken its place."""
        slot = self.slots.outputs[path]
        emit = self._emitter(slot, above)
        emitter, noted = None, Noted()
        if slot in self.slots.hosted:
            entry, emitter = build_hosted(slot, self.view, emit, self._of_source(above), above)
        else:
            fail = self.fail(output.step_id, output.path, above, kind=ErrorKind.TASK)
            if self.slots.audits:
                fail = noted.on(fail)
            entry, emitter = self.slots.into_topic(output, slot, self.view, emit, fail, above)
        entry = self._audited(entry, above, noted)
        if output.partitioning is not None:
            fail = self.fail(output.step_id, output.path, above, kind=ErrorKind.ROUTING)
            entry, emitter = keyed(output.partitioning, entry, self.message, self.view, fail, above), None
        source = self.plan.source
        if source.reads is Reads.DEAD_LETTERS and source.settings.replay_limit is not None:
            fail = self.fail(output.step_id, output.path, above, kind=ErrorKind.TASK)
            return limited(entry, source.settings.replay_limit, self.view, fail, above)
        if emitter is not None and not self.slots.audits:
            self._emitters[path] = emitter
        return entry

    def hosted(self, path: NodePath, above: Ancestors) -> NodeInput:
        """A sink that takes messages."""
        slot = self.slots.outputs[path]
        emit = self._emitter(slot, above)
        entry, emitter = build_hosted(slot, self.view, emit, self._of_source(above), above)
        if not self.slots.audits:
            self.written(path, emitter)
        return self._audited(entry, above)

    def _audited(self, output: NodeInput, above: Ancestors, noted: Noted | None = None) -> NodeInput:
        """An output with its copies into the sinks of audits."""
        for audit in self.slots.audits:
            emit = self._emitter(audit, above)
            output = build_audit(output, audit, self.view, emit, self._of_source(above), above, noted)
        return output

    def _of_source(self, above: Ancestors) -> Fail:
        """The error boundary of what is found wrong here with the record as it was read."""
        return self.fail(child_id(self.plan.name, SOURCE), (), above)

    def bound(self, function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
        """A function of the author's with the dependencies that it takes by name."""
        if not names or self.provides is None:
            return function
        return self.provides.bind(function, names)

    def entry_at(self, path: NodePath) -> NodeInput:
        """The way into a node that is built already."""
        return self._entries[path]

    @property
    def child_indexes(self) -> tuple[ChildIndex, ...]:
        """Where every expansion says which child is at work."""
        return tuple(self._cells.values())

    def suspends(
        self,
        function: Callable[..., Any],
        names: tuple[str, ...],
        resume: Callable[..., None],
        fail: Callable[..., None],
        above: Ancestors,
    ) -> Suspend:
        """How an async step hands over its work: with the argument and what `resume` and `fail` are called with behind the
        result or the error. Only a builder inside an async scope can.
        """
        raise ValueError("an async step outside of an async scope")

    def entry(self, record: Receive, tombstone: Receive, above: Ancestors) -> NodeInput:
        """The entry of a node that takes records one by one."""
        return node_input(record, tombstone, above)

    def fail(
        self,
        step_id: StepId,
        path: NodePath,
        above: Ancestors,
        *,
        kind: ErrorKind | None = None,
        attempts: Attempts | None = None,
    ) -> Fail:
        """The error boundary of a place."""
        return self._failures.at(step_id, path, kind=kind, above=above, attempts=attempts)

    def notice_retry(self, step_id: StepId, error: BaseException, origin: Any, attempts: int) -> None:
        """A record of a place has failed and will be tried again."""
        self._failures.retrying(step_id, error, origin, attempts)

    def cell(self, path: NodePath) -> ChildIndex:
        """Where the expansion at a path says which child is at work."""
        return self._cells.setdefault(path, ChildIndex())

    def emits_on_stop(self) -> bool:
        """Whether records that wait leave at a stop: if their offsets have been committed already."""
        return self.plan.source.mode.emits_kept_on_stop

    def written(self, path: NodePath, emit: Emitter) -> None:
        """Let a node be written into the loop."""
        self._emitters[path] = emit

    def emitted(self, path: NodePath, emit: Emitter, after: NodeInput | None) -> Receive:
        """Let a node be written into the loop, and return its function for records that are not in the loop.

        Args:
            path: the place of the node.
            emit: writes the node.
            after: the next node; `None` for an emitter that always ends.
        """
        self.written(path, emit)
        write = emit
        if self._timer is not None:
            step_id = self._step_ids[path]

            def write(code: CodeWriter) -> None:
                self._lap(code, step_id)
                emit(code)

        function = self.functions[path] = build_function(write, after.record if after is not None else None)
        return function

    def write_branch(self, code: CodeWriter, branch: CompiledBranch) -> None:
        """Write the way into a branch: its nodes where they are fused, else a call that ends the work here."""
        if code.fuses:
            self.write_chain(code, branch.nodes, None, ())
        else:
            entry = self._entries[branch.nodes[0].path]
            code.leave(entry.tombstone if code.tombstones else entry.record)

    def write_chain(
        self, code: CodeWriter, nodes: tuple[CompiledNode, ...], end: NodeInput | None, path: NodePath
    ) -> None:
        """Write nodes into the loop, up to the first that it cannot run; `path` is that of an output after them.

        Without an `end` the code falls through, with the payload in `code.payload`.
        """
        for node in nodes:
            emit = self._emitters.get(node.path)
            if emit is None or (node.branches and code.deep):
                code.leave(self._entries[node.path].record)
                return
            code.comment(node.step_id)
            self._lap(code, node.step_id)
            emit(code)
            if code.ended:
                return
        if end is not None:
            emit = self._emitters.get(path)
            if emit is not None:
                if self._timer is not None:
                    self._lap(code, child_id(self.plan.name, OUTPUT))
                emit(code)
            else:
                code.leave(end.record)

    def places(self, node: CompiledNode, above: Ancestors) -> list[Ancestors]:
        """The ancestors of the head of each branch of a node that takes one of them, and last those of the next node.

        The expansions of all branches are above each of them, since its records share their way on with those of the
        others, and say there that they are no child of those.
        """
        ways: set[tuple[NodePath, ...]] = set()
        behind = above
        for branch in node.branches:
            place = Ancestors(behind.cells, above.waits, behind.told)
            for inner in branch.nodes:
                place = self._below(inner, place)
            behind = place
            if branch.nodes[-1].continues:
                ways |= place.waits
        places = [Ancestors(behind.cells, above.waits, above.told)] * len(node.branches)
        return [*places, Ancestors(behind.cells, frozenset(ways) or above.waits, behind.told)]

    def inside(self, scope: CompiledNode, above: Ancestors) -> list[Ancestors]:
        """The ancestors of each node in a scope, and last those of the node after it."""
        places = [above.behind(scope.path) if scope.gathers else above]
        for node in scope.inside:
            places.append(self._below(node, places[-1]))
        return places

    def _below(self, node: CompiledNode, above: Ancestors) -> Ancestors:
        """The ancestors of the next node."""
        if node.inside:
            return self.inside(node, above)[-1]
        if node.gathers:
            above = above.behind(node.path)
        if not node.continues:
            return above
        if node.branches:
            return self.places(node, above)[-1]
        return above.below(self.cell(node.path)) if node.multiplies else above

    def _emitter(self, slot: int, above: Ancestors) -> Callable[[Result], None]:
        """What takes the results of a place."""
        self._ways.setdefault(slot, set()).update(above.waits)
        return self.stage.emitter(above)

    def _held_back(self) -> frozenset[int] | None:
        """The slots whose results have to wait for records kept before them; `None` for all.

        Under exactly-once what has left the stage must be a prefix of the source, since the position says so. Otherwise
        only the order within an output matters, and that is in danger where records reach it on ways that wait
        differently, or past a node at which a record that is kept may be overtaken.
        """
        if self.plan.source.mode.transaction:
            return None
        overtaking = {node.path for node in walk_nodes(self.plan.nodes) if node.overtakes}
        return frozenset(
            slot
            for slot, ways in self._ways.items()
            if len(ways) > 1 or any(overtaking.intersection(way) for way in ways)
        )


#: (argument of the step, *state)
Suspend: TypeAlias = Callable[..., None]
#: (builder, node, the next input or `None`, its ancestors)
BuildNode: TypeAlias = Callable[[StageBuilder, Any, NodeInput | None, Ancestors], NodeInput]
