"""The flow of the authoring suite as it is meant, with its router. Without `Router` in Loom this module does not load,
and the suite reports its contenders as missing."""

from __future__ import annotations

from collections.abc import Sequence

from bench.authoring_flow import AsNode, as_record_step, flow
from bench.authoring_steps import in_app, in_store, on_the_web, where_sold
from bench.loom_memory import run_in_memory
from loom.streaming import Process, Router, step
from loom.streaming.record import KafkaRecord


def run_step(records: Sequence[KafkaRecord]) -> int:
    """Ten `@step` functions, three of them in branches."""
    return run_in_memory(flow(step, _router(step)), records)


def run_record_step(records: Sequence[KafkaRecord]) -> int:
    """Ten `RecordStep`s, which are handed a `Message`, three of them in branches."""
    return run_in_memory(flow(as_record_step, _router(as_record_step)), records)


def _router(as_node: AsNode) -> Router:
    branches = {"store": Process(as_node(in_store)), "app": Process(as_node(in_app))}
    return Router.by(where_sold, branches, default=Process(as_node(on_the_web)))
