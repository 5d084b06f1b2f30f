"""Who takes part: one line for each contender of each suite, with the function that does its work as `module:function`.

What that function takes is said by its suite (`README.md`, "Adding a contender"). One that cannot run here is left out,
and the report says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from bench.environment import EnvironmentUnavailable, interpreter
from loom.core.errors import NotSupportedYetError


class Contender(msgspec.Struct, frozen=True):
    """One that takes part."""

    run: str
    #: in memory: makes of the records, before anything is measured, what `run` takes
    prepare: str | None = None
    #: on Kafka: called before anything is measured
    beforehand: str | None = None
    #: a file of pins in this folder, for one that runs in an environment of its own
    requirements: str | None = None
    #: a package that not every Python has
    needs: str | None = None
    #: takes part only where it is named
    aside: bool = False
    #: on Kafka: how many partitions the topic has that it reads
    partitions: int = 4


_LOOM_RECORDS = "bench.loom_memory:as_records"

MEMORY = {
    "plain": Contender("bench.memory:plain"),
    "bytewax_maps": Contender("bench.memory_bytewax:bytewax_maps", needs="bytewax"),
    "loom_step": Contender("bench.loom_memory:run_step", _LOOM_RECORDS),
    "loom_loop_step": Contender("bench.loom_memory:run_loop_step", _LOOM_RECORDS),
    "loom_record_step": Contender("bench.loom_memory:run_record_step", _LOOM_RECORDS),
    "loom_overrides": Contender("bench.loom_overrides:run", needs="bytewax"),
    "loom_metrics": Contender("bench.loom_memory:run_metrics", _LOOM_RECORDS, needs="prometheus_client", aside=True),
    "loom_traces": Contender("bench.loom_memory:run_traces", _LOOM_RECORDS, needs="opentelemetry", aside=True),
}
AUTHORING = {
    "plain": Contender("bench.authoring:routed"),
    "loom_step": Contender("bench.authoring_router:run_step", _LOOM_RECORDS),
    "loom_record_step": Contender("bench.authoring_router:run_record_step", _LOOM_RECORDS),
    "plain_unrouted": Contender("bench.authoring:unrouted"),
    "loom_step_unrouted": Contender("bench.authoring_flow:run_step", _LOOM_RECORDS),
    "loom_record_step_unrouted": Contender("bench.authoring_flow:run_record_step", _LOOM_RECORDS),
}
ASYNC = {
    "semaphore": Contender("bench.async_calls:semaphore"),
    "loom": Contender("bench.async_calls:loom", _LOOM_RECORDS, needs="bytewax"),
    "loom_evenly": Contender("bench.async_calls:loom_evenly", _LOOM_RECORDS, needs="bytewax"),
    "loom_key": Contender("bench.async_calls:loom_key", _LOOM_RECORDS, needs="bytewax"),
}
ASYNC_KAFKA = {
    "faststream": Contender("bench.kafka_faststream:run", requirements="faststream-requirements.txt"),
    "faststream_aiokafka": Contender("bench.kafka_faststream:run_aiokafka", requirements="faststream-requirements.txt"),
    "loom": Contender("bench.loom_kafka:run_calls"),
    "loom_loop": Contender("bench.loom_kafka:run_calls_loop"),
    "loom_exactly_once": Contender("bench.loom_kafka:run_calls_exactly_once"),
}
KAFKA = {
    "loop": Contender("bench.kafka_loop:run"),
    "bytewax_bundled": Contender("bench.kafka_bytewax:run", needs="bytewax"),
    "quix": Contender("bench.kafka_quix:run", requirements="quix-requirements.txt"),
    "loom": Contender("bench.loom_kafka:run"),
    "loom_loop": Contender("bench.loom_kafka:run_loop"),
    "loom_hundred": Contender("bench.loom_kafka:run", partitions=100),
    "loop_hundred": Contender("bench.kafka_loop:run", partitions=100, aside=True),
    "loom_exactly_once": Contender("bench.loom_kafka:run_exactly_once"),
    "loom_metrics": Contender("bench.loom_kafka:run_metrics", needs="prometheus_client", aside=True),
    "loom_traces": Contender(
        "bench.loom_kafka:run_traces", beforehand="bench.observed:stand_by", needs="opentelemetry", aside=True
    ),
}
LATENCY = {
    "direct": Contender("bench.latency:stand_by"),
    "bytewax_bundled": Contender("bench.kafka_bytewax:serve", needs="bytewax"),
    "quix": Contender("bench.kafka_quix:serve", requirements="quix-requirements.txt"),
    "loom": Contender("bench.loom_kafka:serve"),
    "loom_exactly_once": Contender("bench.loom_kafka:serve_exactly_once"),
}
MEMBERS = {
    "quix": Contender("bench.kafka_quix:serve_member", requirements="quix-requirements.txt"),
    "quix_named": Contender("bench.kafka_quix:serve_member", requirements="quix-requirements.txt"),
    "loom": Contender("bench.loom_kafka:serve_member"),
    "loom_named": Contender("bench.loom_kafka:serve_member"),
    "loom_exactly_once": Contender("bench.loom_kafka:serve_member_exactly_once"),
    "loom_exactly_once_named": Contender("bench.loom_kafka:serve_member_exactly_once"),
}
PROCESSES = {
    "memory_one": Contender("bench.processes:in_memory"),
    "memory_two": Contender("bench.processes:in_memory"),
    "kafka_one": Contender("bench.processes:over_kafka"),
    "kafka_two": Contender("bench.processes:over_kafka"),
}
STARTUP = {
    "loop": Contender("bench.startup_contenders:loop"),
    "loom": Contender("bench.startup_contenders:loom"),
    "loom_exactly_once": Contender("bench.startup_contenders:loom_exactly_once"),
}


def resolve(target: str) -> Callable[..., Any]:
    """The function of a contender."""
    module, _, function = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def why_missing(contender: Contender) -> str | None:
    """Why a contender cannot run here, or None when it can; an error inside its module is not hidden."""
    if contender.needs is not None and find_spec(contender.needs) is None:
        return f"{contender.needs} is not installed, and may not be there for this Python"
    try:
        if contender.requirements is not None:
            interpreter(contender.requirements)
        else:
            resolve(contender.run)
    except (EnvironmentUnavailable, NotSupportedYetError) as reason:
        return str(reason)
    return None


def python_of(contender: Contender) -> Path | None:
    """The interpreter of a contender that does not run in the project's own environment."""
    return None if contender.requirements is None else interpreter(contender.requirements)


def missing(contenders: Mapping[str, Contender]) -> dict[str, str]:
    """Those that cannot run here, and why."""
    found = {name: why_missing(contender) for name, contender in contenders.items() if not contender.aside}
    return {name: reason for name, reason in found.items() if reason is not None}
