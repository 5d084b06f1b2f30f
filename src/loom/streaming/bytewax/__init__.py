"""Flows on the Bytewax engine. Only this package imports bytewax; runner, registry and settings are the runtime's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.cli.program import main
    from loom.streaming.bytewax.build import build_dataflow, build_dataflow_with_shutdown
    from loom.streaming.bytewax.error_sink import ErrorSink
    from loom.streaming.runtime.commit import CommitTracker
    from loom.streaming.runtime.registry import (
        RegisteredSink,
        RuntimeSinkBinding,
        SinkBuildContext,
        SinkRegistry,
    )
    from loom.streaming.runtime.run_errors import (
        ClockSetBackError,
        DuplicateErrorSinkError,
        EngineMissingError,
        FlowFailedError,
        ForcedShutdownError,
        RecoveryDirectoryError,
        StalledError,
        UnroutedRecordError,
    )
    from loom.streaming.runtime.runner import StreamingRunner
    from loom.streaming.runtime.settings import BytewaxRecoverySettings, BytewaxRuntimeConfig

__all__ = [
    "BytewaxRecoverySettings",
    "BytewaxRuntimeConfig",
    "ClockSetBackError",
    "CommitTracker",
    "DuplicateErrorSinkError",
    "EngineMissingError",
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

__getattr__, __dir__ = lazy_exports(__name__)
