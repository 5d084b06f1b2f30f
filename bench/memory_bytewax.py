"""In memory: a Bytewax dataflow as its guide shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from bench.memory import let_go
from bench.orders import decode, encode, price, validate

BATCH = 1_000


def bytewax_maps(records: Sequence[bytes]) -> int:
    """A Bytewax dataflow as its guide shows it, one operator for each step."""
    written: list[bytes] = []
    flow = Dataflow("orders")
    stream: Any = op.input("input", flow, _Batches(records))
    for name, step in (("decode", decode), ("validate", validate), ("price", price), ("encode", encode)):
        stream = op.map(name, stream, step)
    op.output("output", stream, _Collect(written))
    cli_main(flow)
    return let_go(written)


class _Batches(DynamicSource[bytes]):
    def __init__(self, records: Sequence[bytes]) -> None:
        self._records = records

    def build(self, *_: object) -> StatelessSourcePartition[bytes]:
        return _BatchesPartition(self._records)


class _BatchesPartition(StatelessSourcePartition[bytes]):
    def __init__(self, records: Sequence[bytes]) -> None:
        self._records = records
        self._at = 0

    def next_batch(self) -> Sequence[bytes]:
        if self._at >= len(self._records):
            raise StopIteration
        batch = self._records[self._at : self._at + BATCH]
        self._at += BATCH
        return batch


class _Collect(DynamicSink[bytes]):
    def __init__(self, written: list[bytes]) -> None:
        self._written = written

    def build(self, *_: object) -> StatelessSinkPartition[bytes]:
        return _CollectPartition(self._written)


class _CollectPartition(StatelessSinkPartition[bytes]):
    def __init__(self, written: list[bytes]) -> None:
        self._written = written

    def write_batch(self, items: list[bytes]) -> None:
        self._written.extend(items)
