"""The exit codes of the command line. Scripts and supervisors act on them, so they do not change."""

from __future__ import annotations

from enum import IntEnum

from loom.core.config import ConfigError
from loom.core.errors import LoomError, NotSupportedYetError
from loom.streaming.compiler.catalogue import Code, CompilationError
from loom.streaming.kafka.errors import (
    AuthenticationFailedError,
    AuthorizationFailedError,
    BrokerUnavailableError,
    OffsetOutOfRangeError,
    ProducerFailedError,
    SecondInstanceError,
    TopicMissingError,
    TopicsChangedError,
    TransactionAbortedError,
    TransactionFailedError,
)
from loom.streaming.kafka.settings import KafkaSettingsError
from loom.streaming.runtime.layout import TooManyProcessesError
from loom.streaming.runtime.run_errors import (
    ClockSetBackError,
    DuplicateErrorSinkError,
    EngineMissingError,
    ForcedShutdownError,
    PeerLostError,
    PeersMissingError,
    RecoveryDirectoryError,
    StalledError,
    StoppedBeforeStartError,
    UnshareableSinkError,
)

__all__ = ["EndpointError", "Exit", "FlowNotFoundError", "InputError", "exit_for"]


class Exit(IntEnum):
    """The exit codes."""

    DONE = 0  #: stopped in order, or the input is over
    FAILED = 1  #: the run failed: a record, a step, a delivery
    USAGE = 2  #: wrong arguments or input, or no such module or flow
    CONFIG = 3  #: the config cannot be read or does not fit
    COMPILATION = 4  #: the flow does not compile
    ENVIRONMENT = (
        5  #: no broker, or one that rejects us, no topic or offset, no flow to watch, a directory not to be written
    )
    FORCED = 6  #: a stop that took longer than allowed
    RESTART = 7  #: a transaction was aborted (nothing of it is visible), a producer failed, or topics changed: restart
    REPLACED = 8  #: another instance took over or shares the group, or the transactional producer failed permanently
    STALLED = 9  #: alive, with records to read, and no offset advanced for `streaming.supervision.stall_timeout_ms`


class FlowNotFoundError(Exception):
    """`module:flow` names nothing that can be run."""


class EndpointError(LoomError):
    """Nothing answers at the address of a flow, or something that is none."""


class InputError(LoomError):
    """An argument or a file that a tool was given cannot be used: which line, and why."""


_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (FlowNotFoundError, Exit.USAGE),
    (InputError, Exit.USAGE),
    (EndpointError, Exit.ENVIRONMENT),
    (ConfigError, Exit.CONFIG),
    (DuplicateErrorSinkError, Exit.CONFIG),
    (KafkaSettingsError, Exit.CONFIG),
    (NotSupportedYetError, Exit.CONFIG),
    (TooManyProcessesError, Exit.CONFIG),
    (UnshareableSinkError, Exit.CONFIG),
    (CompilationError, Exit.COMPILATION),
    (BrokerUnavailableError, Exit.ENVIRONMENT),
    (AuthenticationFailedError, Exit.ENVIRONMENT),
    (AuthorizationFailedError, Exit.ENVIRONMENT),
    (TopicMissingError, Exit.ENVIRONMENT),
    (OffsetOutOfRangeError, Exit.ENVIRONMENT),
    (EngineMissingError, Exit.ENVIRONMENT),
    (RecoveryDirectoryError, Exit.ENVIRONMENT),
    (ForcedShutdownError, Exit.FORCED),
    (StalledError, Exit.STALLED),
    (ClockSetBackError, Exit.RESTART),
    (PeerLostError, Exit.RESTART),
    (PeersMissingError, Exit.RESTART),
    (StoppedBeforeStartError, Exit.DONE),
    (ProducerFailedError, Exit.RESTART),
    (TransactionAbortedError, Exit.RESTART),
    (TopicsChangedError, Exit.RESTART),
    (TransactionFailedError, Exit.REPLACED),
    (SecondInstanceError, Exit.REPLACED),
)


#: what the compiler finds in the config and not in the flow
_OF_THE_CONFIG = {Code.CONFIG_MISSING, Code.CONFIG_INVALID, Code.DELIVERY_CONFLICT, Code.TOPIC_SHARED}


def exit_for(error: BaseException) -> Exit:
    """The exit code of an error."""
    if isinstance(error, CompilationError) and all(
        issue.code in _OF_THE_CONFIG or issue.where == "config" for issue in error.errors
    ):
        return Exit.CONFIG
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)
