"""Runs a flow and stops it while calls are in progress."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from loom.streaming import ErrorKind, StreamFlow, compile_flow
from loom.streaming.kafka import TopicPartition
from loom.streaming.runtime.assembly import Transport
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.engine import load_engine
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.override_view import override_view
from loom.streaming.runtime.producers import NoProducers
from loom.streaming.runtime.settings import BytewaxRuntimeConfig
from tests.support.engines import chosen_engine
from tests.support.running import config_for, keeping
from tests.support.scripted import Pause, open_items
from tests.support.waiting import LONG_S

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
        "sink": keeping(out),
        "error_sinks": {kind: keeping(errors) for kind in ErrorKind},
    }
    forever = open_items([*items, Pause(timedelta(hours=1))], plan.source.settings.batch_size, tracker)
    engine = load_engine(chosen_engine())
    transport = Transport(override_view(plan.source), forever, NoProducers)
    built = engine.lower(plan, BuildOptions(transport=transport, **sinks))
    built.state.epochs.interval_s = 0.02

    def stop() -> None:
        assert started.wait(LONG_S)
        built.shutdown()
        release.set()

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    try:
        engine.run(built.dataflow, BytewaxRuntimeConfig(), Layout())
    finally:
        stopper.join(LONG_S)
        built.finish()
    return out, tracker.last
