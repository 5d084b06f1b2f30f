"""The shape of a stream between two nodes: one record at a time, many, a batch, or nothing."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["StreamShape"]


class StreamShape(StrEnum):
    """What one node passes to the next.

    >>> IntoTopic("orders.collected", shape="batch").shape
    <StreamShape.BATCH: 'batch'>
    """

    RECORD = "record"  #: one message per input record
    MANY = "many"  #: any number of messages per input record
    BATCH = "batch"  #: a list of messages
    NONE = "none"  #: nothing: the stream ends here
