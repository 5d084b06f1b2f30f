"""What a dataflow is built with beside its plan: the ends of the caller's own, and what a run of it is to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom.core.async_bridge import AsyncBridge
from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime
from loom.streaming.compiler.model import NodePath
from loom.streaming.errors import ErrorKind
from loom.streaming.runtime.assembly import Transport
from loom.streaming.runtime.commit import CommitTracker
from loom.streaming.runtime.layout import Layout

__all__ = ["BuildOptions"]


class BuildOptions(LoomFrozenStruct):
    """See `build_dataflow_with_shutdown` for those that are not described here. The default is a run between topics."""

    observability_runtime: ObservabilityRuntime | None = None
    source: Any = None
    sink: Any = None
    terminal_sinks: Mapping[NodePath, Any] | None = None
    error_sinks: Mapping[ErrorKind, Any] | None = None
    bridge: AsyncBridge | None = None
    commit_tracker: CommitTracker | None = None
    #: sinks, by name, that get a copy of every output message
    audits: Mapping[str, Any] | None = None
    #: replaces both ends of Kafka, for backfills, benchmarks and the test kit
    transport: Transport | None = None
    #: a later run may begin with the states that its sinks had at a snapshot; a caller who runs the dataflow may give it a
    #: recovery store
    resumable: bool = True
    #: which process of how many this is
    layout: Layout = Layout()
