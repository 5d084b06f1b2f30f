"""How many records came to each node and left it. Nothing counts them on their way.

What is counted anyway is exact: what was read, failures and drops by step, results by topic. From these follows what came to
the nodes up to the first that branches, multiplies or keeps records. Beyond it the share of the records that came to a node
is known from the batches that are timed, one a second, and is applied to what was read.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import walk_nodes
from loom.streaming.compiler.names import SOURCE, child_id
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.metrics import FlowCounts

if TYPE_CHECKING:
    from loom.streaming.compiler.explain.picture import Box, Picture

__all__ = ["NodeFlow", "NodeRecords", "failures_by_step", "on_the_way"]

#: looks at the shares that are taken together; a batch of a few records says little
_LOOKS = 60


class NodeRecords(LoomFrozenStruct):
    """Records that came to a node, and that left it for the next. `estimated`: one of them is, by the batches that were timed."""

    came: float | None
    left: float | None
    estimated: bool


def failures_by_step(counts: FlowCounts) -> dict[str, int]:
    """Errors of all kinds, by step id."""
    found: dict[str, int] = {}
    for (_, step), count in counts.errors.items():
        found[step] = found.get(step, 0) + count
    return found


def on_the_way(plan: CompiledPlan, counts: FlowCounts, failed: Mapping[str, int]) -> dict[str, tuple[int, int | None]]:
    """By step id, what came to a node and what went on, for the nodes where that follows from what is counted.

    It does up to the first that branches, multiplies or keeps records; of that one, what came is known
    alone. `failed`: errors by step id.
    """
    found: dict[str, tuple[int, int | None]] = {}
    arrived = counts.read - failed.get(child_id(plan.name, SOURCE), 0)
    for node in plan.nodes:
        found[node.step_id] = max(arrived, 0), None
        if node.multiplies or node.branches or node.waits or not node.continues:
            break
        left = arrived - failed.get(node.step_id, 0) - counts.drops.get(node.step_id, 0)
        found[node.step_id] = max(arrived, 0), max(left, 0)
        arrived = left
    return found


class NodeFlow:
    """Follows the records of one flow from look to look. Used under the lock of whoever looks."""

    def __init__(self, plan: CompiledPlan, picture: Picture) -> None:
        self._plan = plan
        self._picture = picture
        self._source = child_id(plan.name, SOURCE)
        self._nodes = {str(node.step_id): node for node in walk_nodes(plan.nodes)}
        ways = [edge for edge in picture.edges if not edge.errors]
        #: the boxes behind each box, and on how many ways records come to one
        self._after = {box.id: [way.target for way in ways if way.source == box.id] for box in picture.boxes}
        self._ways_in = Counter(way.target for way in ways)
        written = Counter(topic for box in picture.boxes if box.id != "source" for topic in box.topics)
        #: topics that are written in one place only, so that their counter is that of the place
        self._alone = {topic for topic, places in written.items() if places == 1}
        #: what was read, and what came to each step in timed batches, at the latest looks
        self._looks: deque[tuple[int, Mapping[str, int]]] = deque([(0, {})], _LOOKS)
        self._estimated: dict[str, float] = {}

    def look(self, counts: FlowCounts, timed: Iterable[Mapping[str, int]]) -> dict[str, NodeRecords]:
        """What has come to each box of the picture so far, by its id. `timed`: what came to steps in timed batches."""
        seen: Counter[str] = Counter()
        for part in timed:
            seen.update(dict(part))
        read_before = self._looks[-1][0]
        _, first = self._looks[0]
        base = seen[self._source] - first.get(self._source, 0)
        if base > 0:
            for step, count in seen.items():
                share = (count - first.get(step, 0)) / base
                self._estimated[step] = self._estimated.get(step, 0.0) + share * (counts.read - read_before)
            self._looks.append((counts.read, seen))
        return self._found(counts)

    def _found(self, counts: FlowCounts) -> dict[str, NodeRecords]:
        failed = failures_by_step(counts)
        exact = on_the_way(self._plan, counts, failed)
        came = {box.id: self._came(box, counts, exact) for box in self._picture.boxes}
        return {box.id: self._records(box, came, exact, counts, failed) for box in self._picture.boxes}

    def _came(
        self, box: Box, counts: FlowCounts, exact: Mapping[str, tuple[int, int | None]]
    ) -> tuple[float | None, bool]:
        """What came to a box, and whether that is an estimate."""
        if box.step_id == self._source:
            return float(counts.read), False
        if (known := exact.get(box.step_id or "")) is not None:
            return float(known[0]), False
        if box.topics and self._alone.issuperset(box.topics):
            written = sum(counts.outputs.get(topic, 0) + counts.refused.get(topic, 0) for topic in box.topics)
            if box.step_id is not None:
                return float(written), False
            return float(self._refused(box.id, counts)), False
        found = self._estimated.get(box.step_id or "")
        return found, found is not None

    def _refused(self, dead_letters: str, counts: FlowCounts) -> int:
        """What the brokers refused of the topics that have their dead letters there."""
        sources = {edge.source for edge in self._picture.edges if edge.target == dead_letters}
        topics = {topic for box in self._picture.boxes if box.id in sources for topic in box.topics}
        return sum(counts.refused.get(topic, 0) for topic in topics)

    def _records(
        self,
        box: Box,
        came: Mapping[str, tuple[float | None, bool]],
        exact: Mapping[str, tuple[int, int | None]],
        counts: FlowCounts,
        failed: Mapping[str, int],
    ) -> NodeRecords:
        arrived, estimated = came[box.id]
        if box.step_id == self._source:
            return NodeRecords(arrived, float(counts.read - failed.get(self._source, 0)), False)
        went_on = exact.get(box.step_id or "", (0, None))[1]
        if went_on is not None:
            return NodeRecords(arrived, float(went_on), False)
        if box.topics:
            return NodeRecords(arrived, arrived, estimated)
        node = self._nodes.get(box.step_id or "")
        if arrived is None or node is None:
            return NodeRecords(arrived, None, estimated)
        if not (node.multiplies or node.waits) and (node.continues or node.branches):
            lost = failed.get(node.step_id, 0) + counts.drops.get(node.step_id, 0)
            return NodeRecords(arrived, max(arrived - lost, 0.0), estimated)
        after = self._after[box.id]
        if not after or any(self._ways_in[target] > 1 for target in after):
            return NodeRecords(arrived, None, estimated)
        known = [count for target in after if (count := came[target][0]) is not None]
        left = sum(known) if len(known) == len(after) else None
        return NodeRecords(arrived, left, estimated or any(came[target][1] for target in after))
