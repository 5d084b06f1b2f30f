"""A sink of one's own is any object with the methods of the protocol."""

from __future__ import annotations

from typing import Any

from loom.streaming import IntoSink, Message, SinkPartition


class ListPartition:
    def __init__(self) -> None:
        self.items: list[Message[Any]] = []

    def write_batch(self, items: list[Message[Any]]) -> None:
        self.items += items

    def flush(self) -> None: ...

    def close(self) -> None: ...


class ListSink:
    def build_partition(
        self,
        config: Any,
        worker_index: int,
        worker_count: int,
        bridge: Any | None = None,
        session_manager: Any | None = None,
    ) -> SinkPartition[Message[Any]]:
        return ListPartition()


def test_an_object_with_build_partition_is_a_sink() -> None:
    assert isinstance(ListSink(), IntoSink)
    assert isinstance(ListSink().build_partition({}, 0, 1), SinkPartition)


def test_an_object_that_cannot_flush_is_no_partition() -> None:
    class Hasty:
        def write_batch(self, items: list[Any]) -> None: ...

        def close(self) -> None: ...

    assert not isinstance(Hasty(), SinkPartition)
    assert not isinstance(Hasty(), IntoSink)
