"""An error is data: from an exception in a step to the record on its error route. Rare path, so clarity wins.

Built once per stage; each place in the flow takes its own `fail` from `at()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from loom.core.errors import ENDS_RUN, DomainError
from loom.core.importable import qualified_name
from loom.core.shown import reason_of
from loom.streaming.compiler.model import NodePath, StepId
from loom.streaming.compiler.names import SOURCE, child_id
from loom.streaming.errors import ErrorEnvelope, ErrorKind, ErrorMessage, ErrorMessageMeta
from loom.streaming.flow import Unrouted
from loom.streaming.kafka.dead_letter import DeadLetterWriter, header_writer
from loom.streaming.kafka.record_accessor import RecordAccessor, UnreadableHeadersError
from loom.streaming.message import MessageMeta, Tombstone
from loom.streaming.metrics import Counts
from loom.streaming.runtime.error_log import ErrorLog
from loom.streaming.runtime.run_errors import ResourceError, RunEndedError, UnroutedRecordError
from loom.streaming.runtime.stages.node_input import NO_CHILD, NOWHERE, Ancestors
from loom.streaming.runtime.stages.raised_at import raised_at
from loom.streaming.runtime.stages.stage_io import Result

__all__ = ["NOT_DECODED", "Attempts", "ErrorTarget", "Fail", "Failures", "NoBranchError", "UndeclaredNoneError"]

#: the payload of a record whose bytes do not decode
NOT_DECODED: Any = object()

#: (exception, payload, origin, meta): makes the record an error of the place it was taken for
Fail = Callable[[BaseException, Any, Any, MessageMeta | None], None]


#: the error, which child of its record it belongs to, where it was raised, how many attempts were made, and the record
_WriteOriginal: TypeAlias = Callable[[BaseException, str, str | None, int | None, Any], None]


class NoBranchError(Exception):
    """No branch takes a record, and there is no default."""


class UndeclaredNoneError(Exception):
    """A step returned `None` though its return type does not say so."""


class Attempts:
    """Where a place with a retry policy says how many calls there were for the record that is becoming an error."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made = 1


class ErrorTarget:
    """Where one kind of error goes: a slot of the plan's outlets, as a dead letter or as the envelope itself."""

    __slots__ = ("original", "slot", "write")

    def __init__(self, slot: int, write: DeadLetterWriter | None, *, original: bool = False) -> None:
        self.slot = slot
        #: `None` for a sink that takes envelopes
        self.write = write
        #: the original bytes, key and headers are written, which needs no envelope
        self.original = original


class Failures:
    """The error boundary of one stage."""

    def __init__(
        self,
        flow: str,
        targets: Mapping[ErrorKind, ErrorTarget],
        unrouted: Unrouted,
        view: RecordAccessor,
        counts: Counts,
        emitter: Callable[[int, Ancestors], Callable[[Result], None]],
        log_drop: Callable[[ErrorEnvelope[Any]], None],
        error_log: ErrorLog,
    ) -> None:
        self._flow = flow
        self._targets = targets
        self._unrouted = unrouted
        self._view = view
        self._counts = counts
        self._emitter = emitter
        self._log_drop = log_drop
        self._error_log = error_log
        #: origin and kind of each failure in the current batch; the stage takes and clears it
        self.failed: list[tuple[Any, ErrorKind]] = []
        #: how many of them have left as a result; the stage takes it too
        self.emitted = 0

    def at(
        self,
        step_id: StepId,
        path: NodePath,
        *,
        kind: ErrorKind | None = None,
        above: Ancestors = NOWHERE,
        attempts: Attempts | None = None,
    ) -> Fail:
        """The error boundary of one place.

        Without a `kind`, a `DomainError` is `BUSINESS` and anything else `TASK`. What ends a program is no error of a
        record: it is raised again, with the place and the record named. `attempts` tells of calls that were repeated.
        """
        emitters = {target.slot: self._emitter(target.slot, above) for target in self._targets.values()}
        told = above.told
        #: made for the first error of a kind, since most places never see one
        originals: dict[ErrorKind, _WriteOriginal] = {}

        def unreadable(error: BaseException, origin: Any) -> None:
            # Found when the headers are first needed, and yet an error of the source: reported once.
            if self._view.tell_lost(origin):
                source = child_id(self._flow, SOURCE)
                self.at(source, (), kind=ErrorKind.WIRE, above=above)(error, NOT_DECODED, origin, None)

        def fail(error: BaseException, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
            if isinstance(error, ENDS_RUN):
                raise RunEndedError(self._flow, step_id, str(self._view.place(origin)), error) from error
            if isinstance(error, ResourceError):
                raise error
            if isinstance(error, UnreadableHeadersError) and kind is not ErrorKind.WIRE:
                unreadable(error, origin)
                return
            found = kind or (ErrorKind.BUSINESS if isinstance(error, DomainError) else ErrorKind.TASK)
            self.failed.append((origin, found))
            self._counts.errors[found, step_id] += 1
            at = raised_at(error)
            self._error_log.notice(found, step_id, error, at, self._view.place(origin))
            index = ".".join([str(cell.at) for cell in told if cell.at != NO_CHILD]) if told else ""
            made = attempts.made if attempts is not None else None
            target = self._targets.get(found)
            if target is not None and target.original:
                write_original = originals.get(found)
                if write_original is None:
                    write_original = self._original_writer(found, step_id, path, target.slot, emitters[target.slot])
                    originals[found] = write_original
                self.emitted += 1
                write_original(error, index, at, made, origin)
                return
            envelope = self._envelope(found, error, step_id, path, payload, origin, meta, index, at, made)
            if target is None:
                self._no_route(envelope, error, origin)
                return
            self.emitted += 1
            if target.write is None:
                emitters[target.slot]((target.slot, envelope, None, None, None, origin))
            else:
                record = target.write(envelope, self._flow)
                emitters[target.slot]((target.slot, record.value, record.key, None, record.headers, origin))

        return fail

    def retrying(self, step_id: StepId, error: BaseException, origin: Any, attempts: int) -> None:
        """A record that failed will be tried again: it is noted, and is no error yet."""
        self._error_log.retrying(step_id, error, raised_at(error), self._view.place(origin), attempts)

    def _original_writer(
        self, kind: ErrorKind, step_id: StepId, path: NodePath, slot: int, emit: Callable[[Result], None]
    ) -> _WriteOriginal:
        """Writes the record as it was read. Errors may be many, so this way asks for no more than the dead letter holds."""
        view, headers = self._view, header_writer(self._flow, kind, step_id, path)

        def write(error: BaseException, index: str, at: str | None, attempts: int | None, origin: Any) -> None:
            timestamp = view.time(origin)
            pairs = headers(
                self._reason(error, origin),
                _error_type(error),
                index,
                view.place(origin),
                timestamp,
                view.pairs_left(origin),
                at,
                attempts,
            )
            # The client dates it: a timestamp that an output refuses would be refused here too.
            emit((slot, view.raw(origin), view.key(origin), None, pairs, origin))

        return write

    def _envelope(
        self,
        kind: ErrorKind,
        error: BaseException,
        step_id: StepId,
        path: NodePath,
        payload: Any,
        origin: Any,
        meta: MessageMeta | None,
        index: str,
        at: str | None,
        attempts: int | None,
    ) -> ErrorEnvelope[Any]:
        original = None
        payload_type = None
        if payload is not NOT_DECODED:
            known = meta if meta is not None else self._view.meta_left(origin)
            original = ErrorMessage(
                payload,
                ErrorMessageMeta(
                    known.message_id, _key(known.key), known.headers, known.topic, known.partition, known.offset
                ),
            )
            payload_type = qualified_name(Tombstone if payload is Tombstone() else type(payload))
        return ErrorEnvelope(
            kind,
            self._reason(error, origin),
            payload_type,
            original,
            step_id,
            path,
            _error_type(error),
            self._view.record_left(origin),
            index,
            at,
            attempts,
        )

    def _reason(self, error: BaseException, origin: Any) -> str:
        reason = reason_of(error)
        if isinstance(error, UnreadableHeadersError) or not self._view.has_lost(origin):
            return reason
        return f"{reason} ({UnreadableHeadersError()})"

    def _no_route(self, envelope: ErrorEnvelope[Any], error: BaseException, origin: Any) -> None:
        if self._unrouted == "drop":
            self._log_drop(envelope)
            return
        raise UnroutedRecordError(
            self._flow, envelope.kind, envelope.step_id or "", str(self._view.place(origin)), envelope.reason
        ) from error


def _error_type(error: BaseException) -> str:
    return getattr(error, "__loom_error_type__", None) or qualified_name(type(error))


def _key(key: Any) -> bytes | None:
    """The key of a message as bytes; one that no record can have appears in the reason only."""
    if isinstance(key, str):
        return key.encode("utf-8", "replace")
    return bytes(key) if isinstance(key, (bytes, bytearray)) else None
