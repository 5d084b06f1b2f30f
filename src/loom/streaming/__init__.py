"""Typed stream flows: declare, compile, run. The authoring page; importing it loads no engine and no client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.streaming.bytewax.runner import StreamingRunner
    from loom.streaming.compiler.compile import compile_flow
    from loom.streaming.errors import ErrorEnvelope, ErrorKind, ErrorMessage, ErrorMessageMeta, LoomStreamingError
    from loom.streaming.flow import ErrorRoute, StreamFlow
    from loom.streaming.message import Message, MessageMeta, Tombstone, loom_message_type
    from loom.streaming.nodes.boundary import (
        FromTopic,
        IntoTopic,
        PartitionGuarantee,
        PartitionPolicy,
        PartitionStrategy,
    )
    from loom.streaming.nodes.expressions import msg, payload
    from loom.streaming.nodes.route import Fork, Predicate, Selector
    from loom.streaming.nodes.shape import StreamShape
    from loom.streaming.nodes.sink import IntoSink, SinkPartition
    from loom.streaming.nodes.step import BatchStep, ExpandStep, RecordStep, Step, step
    from loom.streaming.process import Process

__all__ = [
    "BatchStep",
    "ErrorEnvelope",
    "ErrorKind",
    "ErrorMessage",
    "ErrorMessageMeta",
    "ErrorRoute",
    "ExpandStep",
    "Fork",
    "FromTopic",
    "IntoSink",
    "IntoTopic",
    "LoomStreamingError",
    "Message",
    "MessageMeta",
    "PartitionGuarantee",
    "PartitionPolicy",
    "PartitionStrategy",
    "Predicate",
    "Process",
    "RecordStep",
    "Selector",
    "SinkPartition",
    "Step",
    "StreamFlow",
    "StreamShape",
    "StreamingRunner",
    "Tombstone",
    "compile_flow",
    "loom_message_type",
    "msg",
    "payload",
    "step",
]

_WHERE = {
    "loom.streaming.bytewax.runner": ("StreamingRunner",),
    "loom.streaming.compiler.compile": ("compile_flow",),
    "loom.streaming.errors": (
        "ErrorEnvelope",
        "ErrorKind",
        "ErrorMessage",
        "ErrorMessageMeta",
        "LoomStreamingError",
    ),
    "loom.streaming.flow": ("ErrorRoute", "StreamFlow"),
    "loom.streaming.message": ("Message", "MessageMeta", "Tombstone", "loom_message_type"),
    "loom.streaming.nodes.boundary": (
        "FromTopic",
        "IntoTopic",
        "PartitionGuarantee",
        "PartitionPolicy",
        "PartitionStrategy",
    ),
    "loom.streaming.nodes.expressions": ("msg", "payload"),
    "loom.streaming.nodes.route": ("Fork", "Predicate", "Selector"),
    "loom.streaming.nodes.shape": ("StreamShape",),
    "loom.streaming.nodes.sink": ("IntoSink", "SinkPartition"),
    "loom.streaming.nodes.step": ("BatchStep", "ExpandStep", "RecordStep", "Step", "step"),
    "loom.streaming.process": ("Process",),
}
#: declared in the contract, not built yet
_LATER = (
    *("Router", "Route", "ForkRoute", "Broadcast", "BroadcastRoute", "Explode", "ExpandRoutes", "PayloadExpander"),
    *("CollectBatch", "WindowStrategy", "ForEach", "Drain", "BatchExpandStep", "FromMultiTypeTopic"),
    *("With", "WithAsync", "ResourceScope", "ContextFactory"),
    *("IntoTable", "Backend", "SqlAlchemySinkConfig", "SqlAlchemyDatabaseConfig", "DeltaSinkConfig", "FromMongoCDC"),
)
__getattr__, __dir__ = lazy_exports(__name__, _WHERE, later=_LATER)
