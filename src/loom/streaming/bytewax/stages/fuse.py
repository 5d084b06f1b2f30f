"""Everything between source and sink as one batch function, put together from closures at build time.

Called by the adapter's single operator, once per batch. Each source client has a stage of its own, so nothing in it is
shared between worker threads but the author's steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming.bytewax.stages.decode import build_head
from loom.streaming.bytewax.stages.entry import Entry
from loom.streaming.bytewax.stages.failures import ErrorTarget, Fail, Failures
from loom.streaming.bytewax.stages.lazy_message import message_class
from loom.streaming.bytewax.stages.outcome import Result, SourceBatch, StageResults
from loom.streaming.bytewax.stages.outputs import QuietOutput, build_hosted, build_topic, quiet_output
from loom.streaming.bytewax.stages.routing import build_fork
from loom.streaming.bytewax.stages.steps import BatchBuffer, SingleStep, build_batch, build_expand, build_single
from loom.streaming.bytewax.stages.straight import Straight
from loom.streaming.bytewax.stages.waiting import WaitingRoom
from loom.streaming.compiler.names import child_id
from loom.streaming.compiler.plan import (
    CompiledBranch,
    CompiledFork,
    CompiledIntoTopic,
    CompiledNode,
    CompiledPlan,
    CompiledStep,
    CompiledTopic,
    NodePath,
    StepKind,
    walk_nodes,
)
from loom.streaming.errors import ErrorEnvelope, ErrorKind
from loom.streaming.kafka.view import OriginView
from loom.streaming.metrics import Counts

__all__ = ["OutputSlots", "Stage", "build_stage"]

_slot_of = itemgetter(0)
_ORIGIN = 5

Children = tuple[list[int], ...]


class OutputSlots(LoomFrozenStruct):
    """Which slot of the plan's outlets each output of the flow has, and which of them take messages."""

    #: the flow's own output stands under the empty path
    outputs: Mapping[NodePath, int]
    hosted: frozenset[int]
    errors: Mapping[ErrorKind, ErrorTarget]
    #: the name under which results are counted, by slot
    names: tuple[str, ...]


class Stage:
    """One worker's work on the records of one source client. `run` is the hot path."""

    def __init__(self, counts: Counts, names: tuple[str, ...]) -> None:
        self._counts = counts
        self._names = names
        self._results: list[Result] = []
        #: which child each result is of, where expansions and batch steps together could change the order of children
        self._children: list[tuple[int, ...]] | None = None
        self._head: Callable[[Any], None] = lambda origins: None
        self._flushes: list[Callable[[], None]] = []
        self._expands = False
        self._failures: Failures | None = None
        self.room = WaitingRoom()
        self._ending = False
        #: the end mark has been worked on and nothing waits any more
        self.ended = False

    def run(self, batch: SourceBatch) -> StageResults:
        """Work on one batch; what it returns is in source order per output."""
        origins = batch.origins
        if origins:
            self._head(origins)
            for flush in self._flushes:
                flush()
        room = self.room
        room.tick(batch.now)
        if batch.end is not None:
            self._ending = True
            room.end(batch.end)
        if self._ending:
            self.ended = room.kept() == 0
        results = self._take_results(origins)
        self._count(origins, results)
        return StageResults(results, room.safe(batch.positions))

    def _take_results(self, origins: Any) -> list[Result]:
        results = self._results.copy()
        self._results.clear()
        if not self._flushes or len(results) < 2:
            if self._children is not None:
                self._children.clear()
            return results
        # A batch step lets others overtake the records it gathers; what leaves is put back in source order.
        place = {id(origin): index for index, origin in enumerate(origins)}
        if self._children is None:
            results.sort(key=lambda result: place.get(id(result[_ORIGIN]), -1))
            return results
        keys = [
            (place.get(id(result[_ORIGIN]), -1), child) for result, child in zip(results, self._children, strict=True)
        ]
        self._children.clear()
        return [results[index] for index in sorted(range(len(results)), key=keys.__getitem__)]

    def _count(self, origins: Any, results: list[Result]) -> None:
        counts, names = self._counts, self._names
        failures = self._failures
        failed = failures.failed if failures is not None else []
        counts.read += len(origins)
        if results:
            if len(names) == 1:
                counts.outputs[names[0]] += len(results)
            else:
                for slot, count in Counter(map(_slot_of, results)).items():
                    counts.outputs[names[slot]] += count
        if self._expands:
            first: dict[int, ErrorKind] = {}
            for origin, kind in failed:
                first.setdefault(id(origin), kind)
            written = len({id(result[_ORIGIN]) for result in results} - first.keys())
            kinds = list(first.values())
        else:
            kinds = [kind for _, kind in failed]
            written = len(results) - self._emitted_errors(results, failed)
        if kinds:
            counts.inputs_failed.update(kinds)
        counts.inputs_written += written
        counts.inputs_dropped += len(origins) - written - len(kinds)
        if failed:
            failed.clear()

    @staticmethod
    def _emitted_errors(results: list[Result], failed: list[tuple[Any, ErrorKind]]) -> int:
        """How many of the results are errors on their way; a dropped error left no result."""
        if not failed:
            return 0
        guilty = {id(origin) for origin, _ in failed}
        return sum(id(result[_ORIGIN]) in guilty for result in results)


def build_stage(
    plan: CompiledPlan,
    slots: OutputSlots,
    view: OriginView,
    counts: Counts,
    log_drop: Callable[[ErrorEnvelope[Any]], None],
) -> Stage:
    """Resolve a plan to closures for records of one view."""
    stage = Stage(counts, slots.names)
    _Builder(plan, slots, view, counts, log_drop, stage).build()
    return stage


class _Builder:
    """Builds from the end of each chain to its head, since a closure holds what comes behind it."""

    def __init__(
        self,
        plan: CompiledPlan,
        slots: OutputSlots,
        view: OriginView,
        counts: Counts,
        log_drop: Callable[[ErrorEnvelope[Any]], None],
        stage: Stage,
    ) -> None:
        self._plan = plan
        self._slots = slots
        self._view = view
        self._counts = counts
        self._stage = stage
        self._emit = stage._results.append
        self._message = message_class(view)
        self._cells: dict[NodePath, list[int]] = {}
        self._entries: dict[NodePath, Entry] = {}
        self._singles: dict[NodePath, SingleStep] = {}
        self._quiet: QuietOutput | None = None
        kinds = {node.kind for node in walk_nodes(plan.nodes) if isinstance(node, CompiledStep)}
        if {StepKind.EXPAND, StepKind.BATCH} <= kinds:
            stage._children = []
        self._failures = Failures(plan.name, slots.errors, plan.unrouted, view, counts, self._emitter, log_drop)

    def build(self) -> None:
        plan, stage = self._plan, self._stage
        end = None
        if plan.output is not None:
            end = self._output(plan.output, (), self._children_at_end(plan.nodes))
        entry = self._chain(plan.nodes, end, ())
        source_id = child_id(plan.name, "source")
        wire = self._failures.at(source_id, (), kind=ErrorKind.WIRE)
        stage._head = build_head(plan.source, self._view, entry, wire, self._straight(entry, end))
        stage._failures = self._failures
        # Built tail first, so the flush nearest to the source stands last.
        stage._flushes.reverse()

    def _straight(self, entry: Entry, end: Entry | None) -> Straight:
        """The leading steps that have one result each, and what stands behind them."""
        nodes = self._plan.nodes
        steps: list[SingleStep] = []
        while len(steps) < len(nodes) and nodes[len(steps)].path in self._singles:
            steps.append(self._singles[nodes[len(steps)].path])
        output = None
        if len(steps) == len(nodes) and end is not None:
            behind, output = end, self._quiet
        else:
            behind = self._entries[nodes[len(steps)].path] if steps else entry
        return Straight(tuple(steps), behind.record, output, self._message, self._emit)

    def _chain(self, nodes: tuple[CompiledNode, ...], end: Entry | None, children: Children) -> Entry:
        above = [children]
        for node in nodes:
            above.append((*above[-1], self._cell(node)) if _expands(node) else above[-1])
        after = end
        for node, seen in zip(reversed(nodes), reversed(above[:-1]), strict=True):
            after = self._entries[node.path] = self._node(node, after, seen)
        if after is None:
            raise ValueError("a process without nodes and without an output")
        return after

    def _node(self, node: CompiledNode, after: Entry | None, children: Children) -> Entry:
        if isinstance(node, CompiledIntoTopic):
            return self._output(node.output, node.path, children)
        if isinstance(node, CompiledFork):
            branches = {branch.key: self._branch(branch, children) for branch in node.branches}
            default = self._branch(node.default, children) if node.default is not None else None
            fail = self._failures.at(node.step_id, node.path, kind=ErrorKind.ROUTING, children=children)
            return build_fork(node, branches, default, fail, self._message)
        if after is None:
            raise ValueError(f"nothing stands behind {node.step_id}")
        fail = self._failures.at(node.step_id, node.path, children=children)
        return self._step(node, after, fail, children)

    def _step(self, step: CompiledStep, after: Entry, fail: Fail, children: Children) -> Entry:
        if step.kind in (StepKind.FUNCTION, StepKind.RECORD):
            entry, self._singles[step.path] = build_single(step, after, fail, self._counts, self._message)
            return entry
        if step.kind is StepKind.EXPAND:
            self._stage._expands = True
            return build_expand(step, after, fail, self._counts, self._message, self._cell(step))
        buffer = BatchBuffer()
        entry = build_batch(step, after, fail, self._counts, self._message, children, buffer)
        self._stage._flushes.append(buffer.flush)
        return entry

    def _branch(self, branch: CompiledBranch, children: Children) -> Entry:
        return self._chain(branch.nodes, None, children)

    def _output(self, output: CompiledTopic, path: NodePath, children: Children) -> Entry:
        slot = self._slots.outputs[path]
        if slot in self._slots.hosted:
            return build_hosted(slot, self._view, self._emitter(children))
        fail = self._failures.at(output.step_id, output.path, kind=ErrorKind.TASK, children=children)
        if path == ():
            self._quiet = quiet_output(output, slot, fail)
        return build_topic(output, slot, self._view, self._emitter(children), fail)

    def _emitter(self, children: Children) -> Callable[[Result], None]:
        """What takes the results of a place behind these expansions."""
        noted, emit = self._stage._children, self._emit
        if noted is None:
            return emit

        def emit_child(result: Result) -> None:
            emit(result)
            noted.append(tuple(cell[0] for cell in children))

        return emit_child

    def _children_at_end(self, nodes: tuple[CompiledNode, ...]) -> Children:
        return tuple(self._cell(node) for node in nodes if _expands(node))

    def _cell(self, node: CompiledNode) -> list[int]:
        """Where an expansion says which child is at work; one per expansion."""
        return self._cells.setdefault(node.path, [0])


def _expands(node: CompiledNode) -> bool:
    return isinstance(node, CompiledStep) and node.kind is StepKind.EXPAND
