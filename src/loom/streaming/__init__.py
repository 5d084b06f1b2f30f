"""Typed stream flows: declare, compile, run. The authoring page; importing it loads no engine and no client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
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
    from loom.streaming.nodes.retry import CircuitBreaker, RateLimit, Retry, RetryAfter
    from loom.streaming.nodes.route import Fork, ForkRoute, Predicate, Route, Router, Selector
    from loom.streaming.nodes.scope import ContextFactory, Ordering, ResourceScope, With, WithAsync
    from loom.streaming.nodes.shape import StreamShape
    from loom.streaming.nodes.sink import IntoSink, SinkPartition
    from loom.streaming.nodes.step import BatchExpandStep, BatchStep, ExpandStep, RecordStep, Step, step
    from loom.streaming.process import Process
    from loom.streaming.runtime.runner import StreamingRunner

__all__ = [
    "BatchExpandStep",
    "BatchStep",
    "Broadcast",
    "BroadcastRoute",
    "CircuitBreaker",
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
    "Ordering",
    "PartitionGuarantee",
    "PartitionPolicy",
    "PartitionStrategy",
    "PayloadExpander",
    "Predicate",
    "Process",
    "RateLimit",
    "RecordStep",
    "ResourceScope",
    "Retry",
    "RetryAfter",
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

#: declared in the contract, not built yet
_LATER = (
    "Backend",
    "DeltaSinkConfig",
    "FromMongoCDC",
    "IntoTable",
    "Mongo[A-Z]*",
    "SqlAlchemyDatabaseConfig",
    "SqlAlchemySinkConfig",
)
__getattr__, __dir__ = lazy_exports(__name__, later=_LATER)
