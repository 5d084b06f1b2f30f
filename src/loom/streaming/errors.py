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
    """Base of the errors of `loom.streaming`."""


class ErrorKind(StrEnum):
    """Why a record could not go its way."""

    WIRE = "wire"  #: its bytes do not decode
    ROUTING = "routing"  #: no branch takes it, or choosing one failed
    TASK = "task"  #: a step failed
    BUSINESS = "business"  #: a step refused it with a `DomainError`


class ErrorMessageMeta(LoomFrozenStruct):
    """Where the failed message came from. A key that a step set as text is told as UTF-8."""

    message_id: str
    key: bytes | None = None
    headers: Mapping[str, bytes] = {}
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None


class ErrorMessage(LoomFrozenStruct, Generic[P]):
    """The message that the failing step was given."""

    payload: P
    meta: ErrorMessageMeta


class ErrorEnvelope(LoomFrozenStruct, Generic[P]):
    """One record's failure, whole enough to be understood, repaired and replayed.

    `original_message` is what the failing step was given (`None` for `WIRE`: nothing could be decoded);
    `source` is the record as it was read. `error_type` is the exception's `module.qualname`, and `at` the `file:line` of
    the author's code that raised it; `path` is the failing node's address in the flow; `index` tells which child of the
    record failed, one number for each expansion above the node, joined by dots. Source position, `step_id` and `index`
    together are the same whenever the record is processed again.
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
