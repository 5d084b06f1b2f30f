"""Runs a flow and stops it while calls are in progress."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bytewax.run import cli_main
from bytewax.testing import TestingSink, TestingSource

from loom.streaming import ErrorKind, StreamFlow, compile_flow
from loom.streaming.bytewax import build_dataflow_with_shutdown
from loom.streaming.kafka import TopicPartition
from tests.support.running import config_for

__all__ = ["stopped_while"]


class Confirmed:
    """Keeps the last position of each partition."""

    def __init__(self) -> None:
        self.last: dict[TopicPartition, int] = {}

    def confirm(self, positions: Mapping[TopicPartition, int]) -> None:
        self.last.update(positions)


def stopped_while(
    declared: StreamFlow[Any, Any],
    items: list[Any],
    started: threading.Event,
    release: threading.Event,
    *,
    delivery: str = "at_least_once",
) -> tuple[list[Any], dict[TopicPartition, int]]:
    """Stop the flow once it has started calls, then let them end. What left it, and the positions that were confirmed."""
    plan = compile_flow(declared, config=config_for(consumer={"delivery": delivery}))
    out: list[Any] = []
    tracker = Confirmed()
    errors: list[Any] = []
    sinks: dict[str, Any] = {
        "sink": TestingSink(out),
        "error_sinks": {kind: TestingSink(errors) for kind in ErrorKind},
    }
    forever = TestingSource([*items, TestingSource.PAUSE(timedelta(seconds=60))])
    built = build_dataflow_with_shutdown(plan, source=forever, commit_tracker=tracker, **sinks)

    def stop() -> None:
        assert started.wait(20)
        built.shutdown()
        release.set()

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    try:
        cli_main(built.dataflow, epoch_interval=timedelta(milliseconds=20))
    finally:
        stopper.join(20)
        built.shutdown()
    return out, tracker.last
