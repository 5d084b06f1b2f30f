"""Sinks of one's own: what a storage sink must offer to be written to from a flow.

It may end a process or a branch as a node, take the place of a topic as an override, or be named in the config.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = ["IntoSink", "SinkPartition"]

Item = TypeVar("Item")


@runtime_checkable
class SinkPartition(Protocol[Item]):
    """An opened sink, used by one thread at a time.

    Whatever it raises ends the run; what had not been flushed is not confirmed, and the next run reads it again.
    """

    def write_batch(self, items: list[Item]) -> None:
        """Take `Message`s, or `ErrorEnvelope`s where it is a sink of errors; they need not be durable yet.

        Called at most once for each batch that the source has read. The list is the sink's to keep.
        """

    def flush(self) -> None:
        """Make everything taken so far durable, and only then return: positions are confirmed behind it.

        Called at the end of each epoch, `streaming.runtime.epoch_interval_ms` apart, in which anything moved; perhaps
        nothing was taken since.
        """

    def close(self) -> None:
        """Let go. Called once, also after a failure, when what was not flushed should be left unwritten."""


@runtime_checkable
class IntoSink(Protocol):
    """A declared sink; opens nothing until it is asked for its partition.

    As a node of a process it is called after its attribute `name`, else after its class; with an attribute `config_path`
    it says which section of the config it will read.

    >>> Process(Price, Warehouse("priced"))  # doctest: +SKIP
    """

    def build_partition(
        self,
        config: Any,
        worker_index: int,
        worker_count: int,
        bridge: Any | None = None,
        session_manager: Any | None = None,
    ) -> SinkPartition[Any]:
        """Open the partition of this process: one for each sink object, wherever in the flow it stands.

        Called on a worker's thread when the engine starts. Raising ends the run before anything is confirmed.

        Parameters:
            config: the `ConfigContext` of the flow for a node; `None` for sinks that were made with what they need
                (registered ones and overrides).
            worker_index: 0. A process has one partition whatever its workers, and processes are not told of each other.
            worker_count: 1.
            bridge: an `AsyncBridge`, whose `run` waits for coroutines of async drivers; `None` where the caller of
                `build_dataflow` gave none.
            session_manager: `None`; for the database sinks of later versions.
        """
