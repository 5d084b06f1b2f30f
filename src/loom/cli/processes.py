"""`loom run --processes`: how many processes, and what the option cannot be combined with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loom.cli.exit_codes import InputError
from loom.core.config import ConfigContext, ConfigError, ConfigProblem
from loom.streaming.flow import StreamFlow
from loom.streaming.kafka.offset_metadata import MAX_WRITERS
from loom.streaming.runtime.layout import ADDRESSES, PROCESS_ID, PROCESSES
from loom.streaming.runtime.settings import BytewaxRuntimeConfig

__all__ = ["cores", "process_count", "refuse_other_layouts"]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def process_count(asked: str, load: Callable[[], StreamFlow[Any, Any]], settings: ConfigContext) -> int:
    """The number that `--processes` asks for: `auto` is one for each core, and no more than there are partitions.

    Raises `InputError` for what is neither a number from 1 to 64 nor `auto`; for `auto` also what a start raises whose
    brokers are not there.
    """
    if asked != "auto":
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked) <= MAX_WRITERS):
            raise InputError(f"--processes: must be a number from 1 to {MAX_WRITERS}, or auto")
        return int(asked)
    from loom.streaming.compiler.compile import compile_flow
    from loom.streaming.kafka.cluster_snapshot import fetch_cluster

    source = compile_flow(load(), config=settings).source
    needed = dict.fromkeys(source.topics, f"the source {source.name!r}")
    seen = fetch_cluster(source.cluster.properties, needed)
    return min(cores(), MAX_WRITERS, max(len(seen.partitions[topic]) for topic in source.topics))


def refuse_other_layouts(environment: Mapping[str, str], runtime: BytewaxRuntimeConfig, file: str | None) -> None:
    """Raise `ConfigError` where the environment or the config also says which process this is."""
    found = [name for name in (PROCESS_ID, PROCESSES, ADDRESSES) if name in environment]
    if runtime.process_id is not None:
        found.append("streaming.runtime.process_id")
    if runtime.addresses is not None:
        found.append("streaming.runtime.addresses")
    if found:
        remedy = "--processes starts all processes itself: remove one of the two"
        raise ConfigError(
            [ConfigProblem(file, name, "cannot be combined with --processes", remedy=remedy) for name in found]
        )


def cores() -> int:
    """The cores that this process may use: those it may run on, within the quota of its container."""
    may_use = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, _, period = _QUOTA.read_text(encoding="ascii").strip().partition(" ")
        granted = -(-int(quota) // int(period)) if quota != "max" else may_use
    except (OSError, ValueError):
        granted = may_use
    return max(1, min(may_use, granted))
