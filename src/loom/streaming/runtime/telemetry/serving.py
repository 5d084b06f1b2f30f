"""The metrics of a run, served from before its start until after its end. Opened by the runner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from loom.core.log_context import run_log_context
from loom.core.observability import ObservabilityRuntime, Scope
from loom.streaming.runtime.assembly import BuiltDataflow

__all__ = ["observed_run", "serving_metrics"]


@contextmanager
def observed_run(observability: ObservabilityRuntime, flow: str, instance: str) -> Iterator[None]:
    """One call of a runner: its log lines name flow and instance, and observers are told of it and send what they hold."""
    with run_log_context(flow=flow, instance=instance):
        try:
            with observability.span(Scope.POLL_CYCLE, flow):
                yield
        finally:
            observability.close()


@contextmanager
def serving_metrics(
    observability: ObservabilityRuntime, built: BuiltDataflow, stall_timeout_ms: int | None, instance: str
) -> Iterator[None]:
    """Serve what an observer serves, ask the brokers where logs end, and follow the counters, during the block."""
    if built.metrics is not None and stall_timeout_ms is not None:
        built.metrics.longest_batch_s = stall_timeout_ms / 1000
    if built.live is not None:
        built.live.instance = instance
    observability.start_scrape_server()
    try:
        with (
            built.monitor.watching() if built.monitor is not None else nullcontext(),
            built.live.watching() if built.live is not None else nullcontext(),
        ):
            yield
    finally:
        observability.stop_scrape_server()
