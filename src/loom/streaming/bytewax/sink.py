"""The sink part of the runtime, as a sink of the engine: pinned to one slot for each process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from loom.core.async_bridge import AsyncBridge
from loom.streaming.runtime.custom_sinks import open_sink
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.output_table import OutputTable
from loom.streaming.runtime.peers import PeerStop
from loom.streaming.runtime.producers import RecordWriter
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.sink_part import SinkPart
from loom.streaming.runtime.stages.stage_io import StageResults

__all__ = ["OutputSink", "slot_of"]

#: Partition names are part of the recovery store, so their number is fixed whatever the layout: one slot per process
#: that a cluster may have. Each process of a cluster reaches its own slot and every N-th after it, so nothing crosses the
#: network. Only this process's slot is ever written to; the others open nothing.
_SLOTS = 64


def slot_of(layout: Layout) -> str:
    """The key of everything that this process writes."""
    return f"{layout.index:02d}"


class OutputSink(FixedPartitionedSink[StageResults | PeerStop, Any]):
    """Builds the part through which this process writes."""

    def __init__(
        self,
        outlets: OutputTable,
        state: RunState,
        make_writers: Callable[[], RecordWriter],
        bridge: Callable[[], AsyncBridge | None],
        layout: Layout = Layout(),  # noqa: B008 - frozen
    ) -> None:
        self._layout = layout
        self._outlets = outlets
        self._state = state
        self._make_writers = make_writers
        self._bridge = bridge

    def list_parts(self) -> list[str]:
        slots = range(self._layout.index, _SLOTS, self._layout.processes) if self._layout.is_cluster else range(_SLOTS)
        return [f"{slot:02d}" for slot in slots]

    def part_fn(self, item_key: str) -> int:
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _Slot:
        writers, states = self._make_writers(), resume_state or {}
        opened = partial(open_sink, layout=self._layout)
        part = SinkPart(self._outlets, self._state, writers, opened, self._bridge, states)
        return _Slot(part, self._state, hears_peers=self._layout.is_cluster)


class _Slot(StatefulSinkPartition[StageResults | PeerStop, Any]):
    """The sink part, to the engine."""

    def __init__(self, part: SinkPart, state: RunState, *, hears_peers: bool) -> None:
        self._hears_peers = hears_peers
        self._part = part
        self._state = state

    def write_batch(self, values: list[StageResults | PeerStop]) -> None:
        if self._hears_peers:
            for value in values:
                if isinstance(value, PeerStop):
                    value.receive(self._state.stop)
        if self._state.aborting():
            return
        results = [value for value in values if isinstance(value, StageResults)]
        try:
            self._part.write(results)
        except BaseException:
            # Noted by the part; the sources end the run.
            if not self._state.aborting():
                raise

    def snapshot(self) -> Any:
        if self._state.fault is not None:
            # A recovery store must not keep what is behind this epoch.
            raise self._state.fault
        return self._part.snapshot()

    def close(self) -> None:
        self._part.close()
