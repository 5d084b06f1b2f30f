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
        FromMultiTypeTopic,
        FromTopic,
        IntoTopic,
        PartitionGuarantee,
        PartitionPolicy,
        PartitionStrategy,
    )
    from loom.streaming.nodes.broadcast import Broadcast, BroadcastRoute
    from loom.streaming.nodes.collect import CollectBatch, Drain, ForEach, WindowStrategy
    from loom.streaming.nodes.expand import ExpandRoutes, Explode, PayloadExpander
    from loom.streaming.nodes.expressions import msg, payload
    from loom.streaming.nodes.route import Fork, ForkRoute, Predicate, Route, Router, Selector
    from loom.streaming.nodes.scope import ContextFactory, ResourceScope, With, WithAsync
    from loom.streaming.nodes.shape import StreamShape
    from loom.streaming.nodes.sink import IntoSink, SinkPartition
    from loom.streaming.nodes.step import BatchExpandStep, BatchStep, ExpandStep, RecordStep, Step, step
    from loom.streaming.process import Process

__all__ = [
    "BatchExpandStep",
    "BatchStep",
    "Broadcast",
    "BroadcastRoute",
    "CollectBatch",
    "ContextFactory",
    "Drain",
    "ErrorEnvelope",
    "ErrorKind",
    "ErrorMessage",
    "ErrorMessageMeta",
    "ErrorRoute",
    "ExpandRoutes",
    "ExpandStep",
    "Explode",
    "ForEach",
    "Fork",
    "ForkRoute",
    "FromMultiTypeTopic",
    "FromTopic",
    "IntoSink",
    "IntoTopic",
    "LoomStreamingError",
    "Message",
    "MessageMeta",
    "PartitionGuarantee",
    "PartitionPolicy",
    "PartitionStrategy",
    "PayloadExpander",
    "Predicate",
    "Process",
    "RecordStep",
    "ResourceScope",
    "Route",
    "Router",
    "Selector",
    "SinkPartition",
    "Step",
    "StreamFlow",
    "StreamShape",
    "StreamingRunner",
    "Tombstone",
    "WindowStrategy",
    "With",
    "WithAsync",
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
    "loom.streaming.flow": (
        "ErrorRoute",
        "StreamFlow",
    ),
    "loom.streaming.message": (
        "Message",
        "MessageMeta",
        "Tombstone",
        "loom_message_type",
    ),
    "loom.streaming.nodes.boundary": (
        "FromMultiTypeTopic",
        "FromTopic",
        "IntoTopic",
        "PartitionGuarantee",
        "PartitionPolicy",
        "PartitionStrategy",
    ),
    "loom.streaming.nodes.broadcast": (
        "Broadcast",
        "BroadcastRoute",
    ),
    "loom.streaming.nodes.collect": (
        "CollectBatch",
        "Drain",
        "ForEach",
        "WindowStrategy",
    ),
    "loom.streaming.nodes.expand": (
        "Explode",
        "ExpandRoutes",
        "PayloadExpander",
    ),
    "loom.streaming.nodes.expressions": (
        "msg",
        "payload",
    ),
    "loom.streaming.nodes.route": (
        "Fork",
        "ForkRoute",
        "Predicate",
        "Route",
        "Router",
        "Selector",
    ),
    "loom.streaming.nodes.scope": (
        "ContextFactory",
        "ResourceScope",
        "With",
        "WithAsync",
    ),
    "loom.streaming.nodes.shape": ("StreamShape",),
    "loom.streaming.nodes.sink": (
        "IntoSink",
        "SinkPartition",
    ),
    "loom.streaming.nodes.step": (
        "BatchExpandStep",
        "BatchStep",
        "ExpandStep",
        "RecordStep",
        "Step",
        "step",
    ),
    "loom.streaming.process": ("Process",),
}
#: declared in the contract, not built yet
_LATER = (
    "Backend",
    "CircuitBreaker",
    "DeltaSinkConfig",
    "FromMongoCDC",
    "IntoTable",
    "Mongo[A-Z]*",
    "RateLimit",
    "Retry",
    "RetryAfter",
    "SqlAlchemyDatabaseConfig",
    "SqlAlchemySinkConfig",
)
__getattr__, __dir__ = lazy_exports(__name__, _WHERE, later=_LATER)
