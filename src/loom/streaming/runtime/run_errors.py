"""The errors of a run. Callers act on the class; the command line turns each into its exit code."""

from __future__ import annotations

from typing import NoReturn

from loom.core.errors import LoomError
from loom.streaming.errors import ErrorKind, LoomStreamingError

__all__ = [
    "ClockSetBackError",
    "DuplicateErrorSinkError",
    "EngineMissingError",
    "FlowFailedError",
    "ForcedShutdownError",
    "PeerLostError",
    "PeersMissingError",
    "ProcessKilledError",
    "RecoveryDirectoryError",
    "ResourceError",
    "RunEndedError",
    "StalledError",
    "StoppedBeforeStartError",
    "UnroutedRecordError",
    "UnshareableSinkError",
    "raise_fault",
]


class DuplicateErrorSinkError(LoomStreamingError):
    """Two registered sinks take the errors of one kind. Exit code 3.

    >>> raise DuplicateErrorSinkError("two sinks for task errors")
    Traceback (most recent call last):
    loom.streaming.runtime.run_errors.DuplicateErrorSinkError: two sinks for task errors
    """


class EngineMissingError(LoomStreamingError):
    """What was asked for needs Bytewax, which is not installed. Exit code 5.

    >>> raise EngineMissingError("the package bytewax is not installed here")
    Traceback (most recent call last):
    loom.streaming.runtime.run_errors.EngineMissingError: the package bytewax is not installed here
    """


class FlowFailedError(LoomStreamingError):
    """A run that failed. Its cause (`__cause__`) is what went wrong: an exception of the author's code, or of Loom. Exit code 1.

    >>> try:
    ...     raise FlowFailedError("the flow 'orders' failed") from OSError("disk full")
    ... except FlowFailedError as failed:
    ...     print(repr(failed.__cause__))
    OSError('disk full')
    """


class UnshareableSinkError(LoomStreamingError):
    """A sink whose parts only one process may open, in a flow of several processes. Exit code 3.

    >>> issubclass(UnshareableSinkError, LoomStreamingError)
    True
    """


class UnroutedRecordError(FlowFailedError):
    """A record failed, its error kind has no route, and the flow says `unrouted="fail"`. Exit code 1.

    The exception that the step raised is the cause.

    >>> error = UnroutedRecordError("orders", ErrorKind.TASK, "orders.price", "orders.raw[0]@7", "no price")
    >>> error.kind, error.step_id
    (<ErrorKind.TASK: 'task'>, 'orders.price')

    Args:
        flow: the name of the flow.
        kind: the kind of error.
        step_id: the failing step.
        place: topic, partition and offset of the record.
        reason: the text of the exception.
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


class ResourceError(FlowFailedError):
    """A resource of a scope does not open, or one that was opened for a batch does not close. Exit code 1.

    It ends the run, since no record could be processed. What the context manager raised is the cause.

    >>> raise ResourceError("orders.with", "client", "open", OSError("refused"))
    Traceback (most recent call last):
    loom.streaming.runtime.run_errors.ResourceError: the resource 'client' of orders.with does not open: OSError: refused

    Args:
        scope: the step id of the scope.
        name: the name of the dependency; `None` where several are closed together.
        what: `open` or `close`.
        error: what the context manager raised.
    """

    def __init__(self, scope: str, name: str | None, what: str, error: BaseException) -> None:
        self.scope = scope
        self.name = name
        which = f"the resource {name!r} of {scope} does not" if name is not None else f"the resources of {scope} do not"
        super().__init__(f"{which} {what}: {type(error).__name__}: {error}")


class ForcedShutdownError(FlowFailedError):
    """A stop took longer than `force_shutdown_timeout_ms`, or a second signal cut it short. Exit code 6.

    The message names what was still open.

    >>> ForcedShutdownError("the stop was not done within 5 s").signal is None
    True
    """

    #: the second signal, where one forced the end
    signal: int | None = None


class StalledError(FlowFailedError):
    """A run was alive and made no progress for `stall_timeout_ms` with records to read. Exit code 9.

    >>> raise StalledError("the flow is stalled: no offset has advanced for 60 s")
    Traceback (most recent call last):
    loom.streaming.runtime.run_errors.StalledError: the flow is stalled: no offset has advanced for 60 s
    """


class ClockSetBackError(FlowFailedError):
    """The wall clock was set back, and the engine, or a wait of the Kafka client, hangs until it has caught up.

    Exit code 7: restart.

    >>> raise ClockSetBackError("the wall clock was set back by 3600.0 s")
    Traceback (most recent call last):
    loom.streaming.runtime.run_errors.ClockSetBackError: the wall clock was set back by 3600.0 s
    """


class PeerLostError(FlowFailedError):
    """Another process of the engine's cluster has ended, so this one ends too. Exit code 7: restart all of them.

    >>> raise PeerLostError("a process of the cluster has ended")
    Traceback (most recent call last):
    loom.streaming.runtime.run_errors.PeerLostError: a process of the cluster has ended
    """


class PeersMissingError(LoomStreamingError):
    """The other processes of a cluster did not come in time. Exit code 7: start all of them together.

    >>> issubclass(PeersMissingError, LoomStreamingError)
    True
    """


class StoppedBeforeStartError(LoomStreamingError):
    """A stop was requested while a process waited for its cluster. Nothing was read. Exit code 0.

    >>> issubclass(StoppedBeforeStartError, LoomStreamingError)
    True
    """


class ProcessKilledError(LoomStreamingError):
    """A record that killed the process whenever it was processed. Never raised: it is the error of its dead letter."""

    #: a contract of its own, whatever this class is called
    __loom_error_type__ = "loom.ProcessKilled"

    def __init__(self, ends: str) -> None:
        self.ends = ends
        super().__init__(f"working on this record ends the process ({ends}), even alone; it was not processed again")


class RecoveryDirectoryError(LoomStreamingError):
    """The recovery directory cannot be written, or holds the state of something else. Exit code 5.

    >>> raise RecoveryDirectoryError("recovery.db_dir './state' cannot be written: Permission denied")
    Traceback (most recent call last):
    loom.streaming.runtime.run_errors.RecoveryDirectoryError: recovery.db_dir './state' cannot be written: Permission denied
    """


def raise_fault(flow: str, fault: BaseException) -> NoReturn:
    """End a run with what went wrong: a fault of ours as it is, anything else as the cause of a `FlowFailedError`."""
    if isinstance(fault, LoomError):
        # Ours already says what, where and why; its own cause is the user's exception.
        raise fault from fault.__cause__
    raise FlowFailedError(f"the flow {flow!r} failed: {type(fault).__name__}: {fault}") from fault
