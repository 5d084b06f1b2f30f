"""An error is data: its kind, the step that failed, the reason and the original record.

Stages build envelopes; error routes and error sinks receive them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from loom.core.errors import LoomError
from loom.core.model import LoomFrozenStruct
from loom.streaming.record import KafkaRecord

__all__ = ["ErrorEnvelope", "ErrorKind", "ErrorMessage", "ErrorMessageMeta", "LoomStreamingError"]

P = TypeVar("P")


class LoomStreamingError(LoomError):
    """Base of the errors of `loom.streaming`.

    >>> from loom.streaming.kafka import BrokerUnavailableError
    >>> issubclass(BrokerUnavailableError, LoomStreamingError)
    True
    """


class ErrorKind(StrEnum):
    """Why a record could not be processed. A flow routes errors by their kind.

    >>> ErrorKind("task")
    <ErrorKind.TASK: 'task'>
    """

    WIRE = "wire"  #: its bytes do not decode
    ROUTING = "routing"  #: no branch takes it, or choosing one failed
    TASK = "task"  #: a step failed
    BUSINESS = "business"  #: a step refused it with a `DomainError`


class ErrorMessageMeta(LoomFrozenStruct):
    """Where the failed message came from.

    >>> ErrorMessageMeta("orders.raw:0:7", key=b"k", topic="orders.raw", partition=0, offset=7).offset
    7

    Args:
        message_id: `topic:partition:offset` for a record read from Kafka.
        key: the record key; one that a step set as text is encoded as UTF-8.
        headers: the headers of the message.
        topic: where the source record was read.
        partition: as `topic`.
        offset: as `topic`.
    """

    message_id: str
    key: bytes | None = None
    headers: Mapping[str, bytes] = {}
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None


class ErrorMessage(LoomFrozenStruct, Generic[P]):
    """The message that the failing step received.

    >>> ErrorMessage(Order(7), ErrorMessageMeta("orders.raw:0:7")).payload.id
    7

    Args:
        payload: its payload.
        meta: where it came from.
    """

    payload: P
    meta: ErrorMessageMeta


class ErrorEnvelope(LoomFrozenStruct, Generic[P]):
    """One failed record, with everything needed to understand, repair and replay it.

    `source` position, `step_id` and `index` together are the same whenever the record is processed again.

    >>> envelope = ErrorEnvelope(ErrorKind.TASK, "no price", step_id="orders.price", error_type="builtins.KeyError")
    >>> envelope.kind, envelope.original_message
    (<ErrorKind.TASK: 'task'>, None)

    Args:
        kind: why it failed.
        reason: the text of the exception.
        payload_type: the name of the payload type.
        original_message: what the failing step received; `None` for `WIRE`, where nothing could be decoded.
        step_id: the failing step.
        path: the address of the failing node in the plan.
        error_type: the `module.qualname` of the exception.
        source: the record as it was read.
        index: which child of the record failed: one number for each expansion above the node, joined by dots.
        at: the `file:line` in the author's code that raised.
        attempts: how many calls there were, where the step has a retry policy.
    """

    kind: ErrorKind
    reason: str
    payload_type: str | None = None
    original_message: ErrorMessage[P] | None = None
    step_id: str | None = None
    path: tuple[int, ...] = ()
    error_type: str | None = None
    source: KafkaRecord | None = None
    index: str = ""
    at: str | None = None
    attempts: int | None = None
