"""Sinks of one's own: what a storage sink must offer to be written to from a flow.

It may end a process or a branch as a node, take the place of a topic as an override, or be named in the config.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = ["IntoSink", "SinkPartition"]

Item = TypeVar("Item")


@runtime_checkable
class SinkPartition(Protocol[Item]):
    """An open sink, used by one thread at a time. Any object with these methods is one.

    Whatever it raises ends the run; what had not been flushed is not committed, and the next run reads it again.

    >>> class Lines:
    ...     def write_batch(self, items):
    ...         self.lines = [str(message.payload) for message in items]
    ...     def flush(self): ...
    ...     def close(self): ...
    >>> isinstance(Lines(), SinkPartition)
    True
    """

    def write_batch(self, items: list[Item]) -> None:
        """Take messages; they need not be durable yet. Called at most once for each batch that the source has read.

        Args:
            items: `Message`s, or `ErrorEnvelope`s for a sink of errors. The list belongs to the sink.

        Raises:
            Exception: ends the run.
        """

    def flush(self) -> None:
        """Make everything taken so far durable, and only then return: offsets are committed after it.

        Called at the end of each epoch (`streaming.runtime.epoch_interval_ms`) in which anything moved, even if nothing was
        taken since.

        Raises:
            Exception: ends the run; nothing of the epoch is committed.
        """

    def close(self) -> None:
        """Release what is open. Called once, also after a failure; what was not flushed should be left unwritten."""


@runtime_checkable
class IntoSink(Protocol):
    """A declared sink; opens nothing until its partition is built. Any object with this method is one.

    As a node of a process it is named after its attribute `name`, or else after its class. An attribute `config_path` names
    the section of the config that it reads.

    >>> class Warehouse:
    ...     config_path = "warehouse"
    ...     def build_partition(self, config, worker_index, worker_count, bridge=None, session_manager=None): ...
    >>> isinstance(Warehouse(), IntoSink)
    True
    >>> stored = Process(Price, Warehouse())
    """

    def build_partition(
        self,
        config: Any,
        worker_index: int,
        worker_count: int,
        bridge: Any | None = None,
        session_manager: Any | None = None,
    ) -> SinkPartition[Any]:
        """Open the partition of this process: one for each sink object, wherever it is used in the flow.

        Called on a worker's thread when the engine starts.

        Args:
            config: the `ConfigContext` of the flow for a node; `None` for registered sinks and overrides, which were created
                with what they need.
            worker_index: 0. A process has one partition for all its workers, and processes do not know each other.
            worker_count: 1.
            bridge: an `AsyncBridge`, whose `run` waits for coroutines of async drivers; `None` if the caller of
                `build_dataflow` gave none.
            session_manager: `None`; for the database sinks of later versions.

        Returns:
            The open partition.

        Raises:
            Exception: ends the run before anything is committed.
        """
