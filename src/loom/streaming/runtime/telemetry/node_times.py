"""What becomes of the times that a stage measures: events for observers, and metrics. Made once per stage, by `Assembly`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from loom.core.observability import ObservabilityRuntime, Scope
from loom.streaming.compiler.model import walk_nodes
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.metrics import Counts
from loom.streaming.runtime.stages.node_timer import NodeTimer

__all__ = ["timer_of"]

#: seconds between two batches that are timed for metrics alone
_METRICS_EVERY = 1.0


def timer_of(plan: CompiledPlan, observability: ObservabilityRuntime, counts: Counts) -> NodeTimer | None:
    """The timer of one stage; `None` where nobody wants to know how long its nodes take."""
    listened, timings = observability.listens(Scope.NODE), counts.timings
    if not listened and timings is None and observability.tracing is None:
        return None
    nodes = {node.step_id for node in walk_nodes(plan.nodes)}
    failed_before: Counter[str] = Counter()

    def tell(step_id: str, seconds: float, records: int, error: BaseException | None) -> None:
        if timings is not None:
            timings.node_took(step_id, seconds, records)
        if not listened or step_id not in nodes:
            return
        meta: dict[str, Any] = {"records": records}
        failed = sum(count for (_, step), count in list(counts.errors.items()) if step == step_id)
        if failed != failed_before[step_id]:
            meta["errors"] = failed - failed_before[step_id]
            failed_before[step_id] = failed
        span = observability.begin(Scope.NODE, step_id, meta=meta)
        if span is not None:
            span.end(error, duration_ms=seconds * 1000)

    if listened:
        return NodeTimer(tell, every_s=0.0)
    # Tracing alone times no batch, only the records that it follows.
    return NodeTimer(tell, every_s=_METRICS_EVERY if timings is not None else None)
