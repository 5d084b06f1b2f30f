"""Bytewax as the runtime sees it: the engine that `loom.streaming.runtime.engine` names."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from bytewax.run import cli_main

from loom.streaming.bytewax.adapter import LONGEST_EPOCH, lower
from loom.streaming.bytewax.recovery import opened_recovery
from loom.streaming.runtime.engine import Engine
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.settings import BytewaxRuntimeConfig

__all__ = ["ENGINE"]


def _run(dataflow: Any, runtime: BytewaxRuntimeConfig, layout: Layout) -> None:
    with opened_recovery(runtime.recovery, dataflow.flow_id, layout) as recovery:
        cli_main(  # type: ignore[no-untyped-call]
            dataflow,
            workers_per_process=runtime.workers_per_process,
            process_id=layout.index if layout.is_cluster else None,
            addresses=list(layout.addresses) if layout.is_cluster else None,
            epoch_interval=timedelta(milliseconds=runtime.epoch_ms) if recovery is not None else LONGEST_EPOCH,
            recovery_config=recovery,
        )


ENGINE = Engine(lower=lower, run=_run, keeps_state=True)
