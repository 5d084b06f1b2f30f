"""How a flow is run: the `streaming` section."""

from __future__ import annotations

from typing import Any, Literal

from loom.core.choices import coerce_choices
from loom.core.config.field_error import MOST_MS, FieldError, require_number, require_text
from loom.core.model import LoomFrozenStruct

__all__ = [
    "BytewaxRecoverySettings",
    "BytewaxRuntimeConfig",
    "StreamingSection",
    "SupervisionSettings",
]

DEFAULT_EPOCH_INTERVAL_MS = 1000
#: a thread each
_MOST_WORKERS = 1024


class BytewaxRecoverySettings(LoomFrozenStruct):
    """The recovery store of the engine; the section `streaming.runtime.recovery`.

    >>> BytewaxRecoverySettings("./state", backup_interval_ms=60_000).db_dir
    './state'

    Args:
        db_dir: a local directory, shared by the workers of this execution.
        backup_interval_ms: how long old snapshots are kept for a backup, in milliseconds.

    Raises:
        ValueError: for an empty directory or a negative time.
    """

    db_dir: str
    backup_interval_ms: int | None = None

    def __post_init__(self) -> None:
        require_text("db_dir", self.db_dir)
        require_number("backup_interval_ms", self.backup_interval_ms, 0, MOST_MS)


class BytewaxRuntimeConfig(LoomFrozenStruct):
    """How a flow is run; the section `streaming.runtime`.

    >>> BytewaxRuntimeConfig(workers_per_process=2).epoch_ms
    1000

    Args:
        workers_per_process: worker threads, 1 to 1,024.
        process_id: which process of an engine's cluster this is, 0 to the number of `addresses` less 1.
        addresses: `host:port` of each process of the cluster, the same everywhere; 2 to 64. The traffic between them is
            unauthenticated: use a private network.
        epoch_interval_ms: how often results become durable and offsets are committed, in milliseconds; `None` means 1,000.
        recovery: the recovery store of the engine.
        async_backend: the event loop of async steps and sinks, `asyncio` or `trio`.
        use_uvloop: applies to `asyncio` only.
        force_shutdown_timeout_ms: limits the whole stop, in milliseconds; `None` means no limit.

    Raises:
        ValueError: for a value that is not allowed.
    """

    workers_per_process: int = 1
    process_id: int | None = None
    addresses: tuple[str, ...] | None = None
    epoch_interval_ms: int | None = None
    recovery: BytewaxRecoverySettings | None = None
    async_backend: Literal["asyncio", "trio"] = "asyncio"
    use_uvloop: bool = False
    force_shutdown_timeout_ms: int | None = None

    def __post_init__(self) -> None:
        coerce_choices(self)
        require_number("workers_per_process", self.workers_per_process, 1, _MOST_WORKERS)
        require_number("epoch_interval_ms", self.epoch_interval_ms, 1, MOST_MS)
        require_number("force_shutdown_timeout_ms", self.force_shutdown_timeout_ms, 1, MOST_MS)

    @property
    def epoch_ms(self) -> int:
        """The length of an epoch."""
        return DEFAULT_EPOCH_INTERVAL_MS if self.epoch_interval_ms is None else self.epoch_interval_ms


#: A position that moves in every epoch is seen to have moved two epochs later: once when its commit is sent, once when it
#: is answered. A time-out below three would call that a standstill.
_EPOCHS_TO_MOVE = 3


#: two ends at one position come before a record is suspected
_RESTARTS_TO_ISOLATE = 2


class SupervisionSettings(LoomFrozenStruct):
    """What is done about a run that fails or stalls.

    `restarts` is how often in a row `loom run` starts a flow again that does not move on; 0 means that it runs without a
    supervisor. `stall_timeout_ms` is how long an offset may stay the same with records after it; `None` means no limit.
    `recoveries` is how often in a row a run goes on in place after a transaction that was aborted, or a producer that failed
    for good, instead of ending.
    `on_poison` is what happens to a record that kills the process whenever it is processed: the flow stays down, or the
    record goes to the route of `TASK` errors.
    """

    stall_timeout_ms: int | None = None
    restarts: int = 0
    on_poison: Literal["fail", "dead_letter"] = "fail"
    recoveries: int = 10

    def __post_init__(self) -> None:
        require_number("stall_timeout_ms", self.stall_timeout_ms, 1, MOST_MS)
        require_number("restarts", self.restarts, 0, MOST_MS)
        require_number("recoveries", self.recoveries, 0, MOST_MS)
        if self.on_poison == "dead_letter" and self.restarts < _RESTARTS_TO_ISOLATE:
            raise FieldError(
                "on_poison",
                f"can be dead_letter only where restarts is {_RESTARTS_TO_ISOLATE} or more",
                "a record is suspected once it has ended the process twice",
            )


class StreamingSection(LoomFrozenStruct):
    """The `streaming` section. The entries of `sinks` are decoded by the sinks that they name.

    `engine` is what drives the flow; `None` means Bytewax where it is installed, else the plain loop.
    """

    engine: Literal["bytewax", "loop"] | None = None
    runtime: BytewaxRuntimeConfig = BytewaxRuntimeConfig()
    supervision: SupervisionSettings = SupervisionSettings()
    sinks: dict[str, dict[str, Any]] = {}

    def __post_init__(self) -> None:
        coerce_choices(self)
        stall, least = self.supervision.stall_timeout_ms, _EPOCHS_TO_MOVE * self.runtime.epoch_ms
        if stall is not None and stall < least:
            raise ValueError(
                f"supervision.stall_timeout_ms is {stall}, and offsets advance once per epoch of {self.runtime.epoch_ms} "
                f"ms; make it {least} or more, or runtime.epoch_interval_ms smaller"
            )
