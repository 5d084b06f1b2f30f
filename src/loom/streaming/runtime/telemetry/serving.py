"""The metrics of a run, served from before its start until after its end. Opened by the runner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from loom.core.observability import ObservabilityRuntime
from loom.streaming.runtime.assembly import BuiltDataflow

__all__ = ["serving_metrics"]


@contextmanager
def serving_metrics(
    observability: ObservabilityRuntime, built: BuiltDataflow, stall_timeout_ms: int | None
) -> Iterator[None]:
    """Serve what an observer serves, and ask the brokers where logs end, during the block."""
    if built.metrics is not None and stall_timeout_ms is not None:
        built.metrics.longest_batch_s = stall_timeout_ms / 1000
    observability.start_scrape_server()
    try:
        with built.monitor.watching() if built.monitor is not None else nullcontext():
            yield
    finally:
        observability.stop_scrape_server()
