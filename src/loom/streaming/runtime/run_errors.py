"""What a run can end with. Callers act on the class; the command line turns each into its exit code."""

from __future__ import annotations

from typing import NoReturn

from loom.core.errors import LoomError
from loom.streaming.errors import ErrorKind, LoomStreamingError

__all__ = [
    "ClockSetBackError",
    "DuplicateErrorSinkError",
    "FlowFailedError",
    "ForcedShutdownError",
    "ProcessKilledError",
    "RecoveryDirectoryError",
    "RunEndedError",
    "StalledError",
    "UnroutedRecordError",
    "raise_fault",
]


class DuplicateErrorSinkError(LoomStreamingError):
    """Two registered sinks want the errors of one kind."""


class FlowFailedError(LoomStreamingError):
    """A run that failed. The cause (`__cause__`) is what went wrong: the user's exception, or a fault of ours."""


class UnroutedRecordError(FlowFailedError):
    """A record failed, its kind of error has no route, and the flow says `unrouted="fail"`.

    The exception that the step raised is the cause.
    """

    def __init__(self, flow: str, kind: ErrorKind, step_id: str, place: str, reason: str) -> None:
        self.flow = flow
        self.kind = kind
        self.step_id = step_id
        self.place = place
        super().__init__(
            f"{kind.value} error at {step_id} for {place}: {reason}. The flow {flow!r} has no route for "
            f"{kind.value} errors, so it stops; give it errors=IntoTopic(…), or unrouted='drop'"
        )


class RunEndedError(FlowFailedError):
    """User code raised what ends a program (`SystemExit`, `KeyboardInterrupt`, `GeneratorExit`); that is the cause."""

    def __init__(self, flow: str, step_id: str, place: str, error: BaseException) -> None:
        self.flow = flow
        self.step_id = step_id
        self.place = place
        super().__init__(
            f"{step_id} raised {type(error).__name__} for {place}, which ends the run of {flow!r}. Raise another "
            "exception to make an error of the record"
        )


class ForcedShutdownError(FlowFailedError):
    """A stop that was not done within `force_shutdown_timeout_ms`, or that a second signal cut short; what was still open
    is named."""

    #: the second signal, where one forced the end
    signal: int | None = None


class StalledError(FlowFailedError):
    """A run that was alive and did not move on for `stall_timeout_ms` although there were records to read."""


class ClockSetBackError(FlowFailedError):
    """The wall clock was set back, and the engine, or a wait of the Kafka client, hangs until it has caught up. Restart."""


class ProcessKilledError(LoomStreamingError):
    """A record that killed the process whenever it was worked on. Never raised: it is the error of a record's dead letter."""

    #: a contract of its own, whatever this class is called
    __loom_error_type__ = "loom.ProcessKilled"

    def __init__(self, ends: str) -> None:
        self.ends = ends
        super().__init__(
            f"working on this record ends the process ({ends}), with nothing else in it; it was not worked on again"
        )


class RecoveryDirectoryError(LoomStreamingError):
    """The recovery directory cannot be made or written."""


def raise_fault(flow: str, fault: BaseException) -> NoReturn:
    """End a run with what went wrong: a fault of ours as it is, anything else as the cause of a `FlowFailedError`."""
    if isinstance(fault, LoomError):
        # Ours already says what, where and why; its own cause is the user's exception.
        raise fault from fault.__cause__
    raise FlowFailedError(f"the flow {flow!r} failed: {type(fault).__name__}: {fault}") from fault
