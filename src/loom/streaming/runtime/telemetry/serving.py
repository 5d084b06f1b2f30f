"""The metrics of a run, served from before its start until after its end. Opened by the runner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from loom.core.observability import ObservabilityRuntime
from loom.streaming.runtime.assembly import BuiltDataflow
from loom.streaming.runtime.settings import BytewaxRuntimeConfig

__all__ = ["serving_metrics"]

_PROCESS_ID = "LOOM_PROCESS_ID"


@contextmanager
def serving_metrics(
    observability: ObservabilityRuntime,
    built: BuiltDataflow,
    runtime: BytewaxRuntimeConfig,
    stall_timeout_ms: int | None,
) -> Iterator[None]:
    """Serve what an observer serves, and ask the brokers where logs end, during the block."""
    built.delivery.process_index = _process_index(runtime)
    if built.metrics is not None and stall_timeout_ms is not None:
        built.metrics.longest_batch_s = stall_timeout_ms / 1000
    observability.start_scrape_server()
    try:
        with built.monitor.watching() if built.monitor is not None else nullcontext():
            yield
    finally:
        observability.stop_scrape_server()


def _process_index(runtime: BytewaxRuntimeConfig) -> int:
    if runtime.process_id is not None:
        return runtime.process_id
    given = os.environ.get(_PROCESS_ID, "")
    return int(given) if given.isdecimal() else 0
