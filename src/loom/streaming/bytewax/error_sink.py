"""The type of what takes errors in place of the flow's own routes. Without Bytewax it names no sinks of its."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

from loom.streaming.nodes.sink import IntoSink

__all__ = ["ErrorSink"]

if TYPE_CHECKING or find_spec("bytewax") is not None:
    from bytewax.outputs import Sink

    #: what `error_sinks` takes: a Bytewax sink, or an `IntoSink`, of `ErrorEnvelope`s
    ErrorSink: TypeAlias = Sink[Any] | IntoSink
else:
    ErrorSink: TypeAlias = IntoSink
