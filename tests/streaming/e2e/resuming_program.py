"""Flows that resume from a recovery store into a file: run by `loom run`, and on an engine of one's own by this program.

`python -m resuming_program COUNT --config DIRECTORY` runs the second: numbers from a stateful source, some at a time.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from bytewax.connectors.files import FileSink
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    CollectBatch,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    StreamFlow,
    compile_flow,
    step,
)
from loom.streaming.bytewax import RuntimeSinkBinding, build_dataflow


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


def flow_of(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("resuming", FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"))


flow = flow_of(same)
collecting = flow_of(CollectBatch(7, timeout_ms=100), ForEach(), same)


class NumberFile(FileSink):
    """A line for each number."""

    def build_part(self, *arguments: Any) -> Any:
        part = super().build_part(*arguments)
        write = part.write_batch
        part.write_batch = lambda messages: write([str(message.payload.n) for message in messages])
        return part


class FileConfig(LoomFrozenStruct):
    path: str


class RegisteredFile:
    """The same, to be named in the config."""

    sink_type: ClassVar[str] = "number-file"
    config_type: ClassVar[type] = FileConfig

    @classmethod
    def build_binding(cls, cfg: FileConfig, ctx: Any) -> RuntimeSinkBinding:
        return RuntimeSinkBinding("terminal", NumberFile(Path(cfg.path)))


class Counting(FixedPartitionedSource[Any, int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def list_parts(self) -> list[str]:
        return ["only"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> StatefulSourcePartition[Any, int]:
        print(f"resumed at {resume_state}", flush=True)
        return CountingPart(resume_state or 0, self.count)


class CountingPart(StatefulSourcePartition[Any, int]):
    def __init__(self, at: int, count: int) -> None:
        self._at, self._count = at, count

    def next_batch(self) -> list[Any]:
        if self._at >= self._count:
            raise StopIteration
        self._at += 1
        return [Message(Number(self._at - 1), MessageMeta(str(self._at - 1)))]

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + timedelta(milliseconds=2)

    def snapshot(self) -> int:
        return self._at


def main(directory: Path, count: int) -> None:
    client = {"brokers": ["127.0.0.1:1"]}
    plan = compile_flow(collecting, config={"kafka": {"consumer": {**client, "group_id": "g"}, "producer": client}})
    dataflow = build_dataflow(plan, source=Counting(count), sink=NumberFile(directory / "numbers.txt"))
    cli_main(dataflow, recovery_config=RecoveryConfig(directory / "state"), epoch_interval=timedelta(milliseconds=20))


if __name__ == "__main__":
    main(Path(sys.argv[-1]), int(sys.argv[1]))
