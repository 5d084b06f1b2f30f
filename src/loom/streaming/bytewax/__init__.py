"""The engine: a compiled plan runs as a Bytewax dataflow. Only this package imports bytewax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.cli.program import main
    from loom.streaming.bytewax.adapter import build_dataflow, build_dataflow_with_shutdown
    from loom.streaming.bytewax.delivery import CommitTracker
    from loom.streaming.bytewax.errors import (
        ClockSetBackError,
        DuplicateErrorSinkError,
        FlowFailedError,
        ForcedShutdownError,
        RecoveryDirectoryError,
        StalledError,
        UnroutedRecordError,
    )
    from loom.streaming.bytewax.registry import (
        ErrorSink,
        RegisteredSink,
        RuntimeSinkBinding,
        SinkBuildContext,
        SinkRegistry,
    )
    from loom.streaming.bytewax.runner import StreamingRunner
    from loom.streaming.bytewax.settings import BytewaxRecoverySettings, BytewaxRuntimeConfig

__all__ = [
    "BytewaxRecoverySettings",
    "BytewaxRuntimeConfig",
    "ClockSetBackError",
    "CommitTracker",
    "DuplicateErrorSinkError",
    "ErrorSink",
    "FlowFailedError",
    "ForcedShutdownError",
    "RecoveryDirectoryError",
    "RegisteredSink",
    "RuntimeSinkBinding",
    "SinkBuildContext",
    "SinkRegistry",
    "StalledError",
    "StreamingRunner",
    "UnroutedRecordError",
    "build_dataflow",
    "build_dataflow_with_shutdown",
    "main",
]

_WHERE = {
    # A program of a flow is the command line's; it is offered here, beside the runner. Nothing below knows it.
    "loom.cli.program": ("main",),
    "loom.streaming.bytewax.adapter": ("build_dataflow", "build_dataflow_with_shutdown"),
    "loom.streaming.bytewax.delivery": ("CommitTracker",),
    "loom.streaming.bytewax.errors": (
        "ClockSetBackError",
        "DuplicateErrorSinkError",
        "FlowFailedError",
        "ForcedShutdownError",
        "RecoveryDirectoryError",
        "StalledError",
        "UnroutedRecordError",
    ),
    "loom.streaming.bytewax.registry": (
        "ErrorSink",
        "RegisteredSink",
        "RuntimeSinkBinding",
        "SinkBuildContext",
        "SinkRegistry",
    ),
    "loom.streaming.bytewax.runner": ("StreamingRunner",),
    "loom.streaming.bytewax.settings": ("BytewaxRecoverySettings", "BytewaxRuntimeConfig"),
}
__getattr__, __dir__ = lazy_exports(__name__, _WHERE)
