"""Drives the parts of one process until their input is over, a stop is done, or something fails. Hot path: the two loops.

One worker runs in the calling thread, which takes the results of a batch to the sink part before the next one is read. Several
are a thread each, with a source client and a stage of its own; the sink part stays in the calling thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from loom.streaming.runtime.loop.handover import Handover
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.sink_part import SinkPart
from loom.streaming.runtime.stages.stage_io import SourceBatch
from loom.streaming.runtime.worker_source import OpenWorker, WorkerSource

__all__ = ["LoopDataflow", "drive"]

#: batches of each worker that wait for the sink part
_ROOM = 8
#: seconds between two looks at the time that a stop has
_LOOK = 0.5


class LoopDataflow:
    """What the loop drives. Nothing is open before it does."""

    def __init__(self, open_worker: OpenWorker, open_part: Callable[[], SinkPart], state: RunState) -> None:
        self.open_worker = open_worker
        self.open_part = open_part
        self.state = state


def drive(flow: LoopDataflow, workers: int) -> None:
    """Run to the end. Raises the first fault; what is open then is left for `BuiltDataflow.finish` to close."""
    try:
        if workers == 1:
            _drive_here(flow)
        else:
            _drive_threads(flow, workers)
    except BaseException as fault:  # noqa: BLE001 - whatever ends a run is raised below
        flow.state.failed(fault)
    if flow.state.fault is not None:
        raise flow.state.fault


def _drive_here(flow: LoopDataflow) -> None:
    source = flow.open_worker(0, 1)
    part = flow.open_part()
    while (batches := _next(source)) is not None:
        if batches:
            part.write([batch.stage.run(batch) for batch in batches])
    source.close()
    part.close()


def _drive_threads(flow: LoopDataflow, workers: int) -> None:
    state = flow.state
    part = flow.open_part()
    handover = Handover(workers, _ROOM * workers, state.stop.check_deadline)
    threads = [
        threading.Thread(target=_work, args=(flow, index, workers, handover), name=f"loom-worker-{index}", daemon=True)
        for index in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        while state.fault is None and (results := handover.take()) is not None:
            part.write(results)
    finally:
        # Whoever waits for room is let go.
        handover.close()
        for thread in threads:
            while thread.is_alive():
                thread.join(_LOOK)
                state.stop.check_deadline("a worker that is still at work")
    if state.fault is None:
        part.close()


def _work(flow: LoopDataflow, index: int, workers: int, handover: Handover) -> None:
    """One worker, on a thread of its own."""
    state = flow.state
    try:
        source = flow.open_worker(index, workers)
        while state.fault is None and (batches := _next(source)) is not None:
            if batches and not handover.put([batch.stage.run(batch) for batch in batches]):
                return
        if state.fault is None:
            source.close()
    except BaseException as fault:  # noqa: BLE001 - raised in the thread that called `drive`
        state.failed(fault)
    finally:
        handover.leave()


def _next(source: WorkerSource) -> list[SourceBatch] | None:
    """The next batches, or `None` at the end: a `StopIteration` of a step or a sink is none of the source's."""
    try:
        return source.next_batch()
    except StopIteration:
        return None
