"""`loom run --source FILE`: the flow of a stream over a file, from its first line to its last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loom.cli.beside import flows_beside
from loom.cli.checkpoint import Checkpoint, fresh_checkpoint, is_done, load_checkpoint, save_checkpoint
from loom.cli.decoders import source_encoder, typed_line
from loom.cli.exit_codes import InputError
from loom.cli.file_output import FileWriters
from loom.cli.parquet import is_parquet, open_parquet
from loom.cli.record_lines import InputLine, LineReader, input_lines, parquet_lines
from loom.cli.sinks import register_sinks
from loom.core.config import ConfigContext
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import Reads
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.flow import StreamFlow
from loom.streaming.metrics import FlowCounts
from loom.streaming.record import KafkaRecord, TopicPartition
from loom.streaming.runtime.output_table import OutputTable
from loom.streaming.runtime.prepare import prepare
from loom.streaming.runtime.registry import SinkRegistry

__all__ = ["Backfill", "run_backfill"]

#: where the checkpoint of a run is kept that writes to topics
_STATE = Path(".loom-backfill")
_CHECKPOINT = ".checkpoint.json"
#: lines between two moves of the bar
_STEP = 200


class Backfill(LoomFrozenStruct):
    """What was asked for."""

    source: str
    #: the folder for results; without one they go to their topics
    output: Path | None = None
    key: str | None = None
    whole: bool = False
    restart: bool = False


def run_backfill(flow: StreamFlow[Any, Any], config: ConfigContext, asked: Backfill, sinks: list[str]) -> None:
    """Run a flow over a file, or go on where an earlier run was stopped or killed.

    Into files every result is written once. Into topics it is at least once: what a killed run had written since its
    checkpoint is written again.
    """
    from loom.streaming.runtime.bounded import run_bounded

    registry = SinkRegistry()
    register_sinks(registry.register, sinks, config)
    prepared = prepare(flow, config, registry, beside=flows_beside(flow))
    plan, source = prepared.plan, Path(asked.source)
    fresh = fresh_checkpoint(plan.name, source)
    place = _place(asked, plan, source)
    begun = fresh if asked.restart else load_checkpoint(place, plan.name, source)
    if is_done(begun, source):
        typer.echo(f"{source} is done already, to its line {begun.lines:,}; --restart begins again")
        return
    if begun.lines:
        typer.echo(f"continues behind line {begun.lines:,} of {source}")
    size = source.stat().st_size
    keeper = _Keeper(place, begun, with_files=asked.output is not None)
    writers = None
    if asked.output is not None:
        folder = asked.output

        def open_files(table: OutputTable) -> FileWriters:
            return FileWriters(table, folder, begun.sizes, keeper.flushed, whole=asked.whole)

        writers = open_files
    with _bar(source) as (progress, task):
        lines = _Lines(plan, asked, begun.lines, lambda done: progress.update(task, completed=done))
        done = run_bounded(prepared, iter(lines), keeper, writers=writers)
    if done.stopped is None:
        keeper.finish(lines.count, size)
    typer.echo(_told(done.counts))
    if done.stopped is not None:
        typer.echo(f"stopped by {done.stopped} behind line {keeper.lines:,}; the same command continues")


def _place(asked: Backfill, plan: CompiledPlan, source: Path) -> Path:
    """Where the checkpoint is."""
    folder = asked.output if asked.output is not None else _STATE
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}") from None
    if asked.output is not None:
        return folder / _CHECKPOINT
    return folder / f"{plan.name}.{source.name}.json".replace("/", "_")


class _Keeper:
    """Keeps the checkpoint of a run: a `CommitTracker`, and where results are files, told by their writer."""

    def __init__(self, place: Path, begun: Checkpoint, *, with_files: bool) -> None:
        self._place = place
        self._now = begun
        self._with_files = with_files

    @property
    def lines(self) -> int:
        """How many lines are done."""
        return self._now.lines

    def confirm(self, positions: Mapping[TopicPartition, int]) -> None:
        """Everything that was made of the lines before is durable."""
        if not self._with_files and positions:
            self._save(replace(self._now, lines=max(positions.values())))

    def flushed(self, lines: int, sizes: dict[str, int]) -> None:
        """The same of files, which are so long then."""
        self._save(replace(self._now, lines=lines, sizes=sizes))

    def finish(self, lines: int, size: int) -> None:
        """The input is over; the file had this size when it was opened."""
        self._save(replace(self._now, lines=lines, done_at=size))

    def _save(self, checkpoint: Checkpoint) -> None:
        self._now = checkpoint
        save_checkpoint(self._place, checkpoint)


class _Lines:
    """The lines of the file as records of the source's topic; a line's number is its offset."""

    def __init__(self, plan: CompiledPlan, asked: Backfill, skip: int, progress: Any) -> None:
        self._plan = plan
        self._asked = asked
        self._skip = skip
        self._progress = progress
        #: how many lines have been read
        self.count = 0

    def __iter__(self) -> Iterator[KafkaRecord]:
        topic = self._plan.source.topics[0]
        make = LineReader(topic, key=self._asked.key, whole=self._asked.whole)
        encode = source_encoder(self._plan, topic)
        for line in self._rows() if is_parquet(self._asked.source) else self._text():
            record = self._record(typed_line(self._plan, line), topic, make, encode)
            yield replace(record, topic=topic, partition=0, offset=self.count - 1)

    def _text(self) -> Iterator[InputLine]:
        bytes_read = 0
        for line in input_lines(self._asked.source):
            bytes_read += len(line.text) + 1
            self.count += 1
            if self.count % _STEP == 0:
                self._progress(bytes_read)
            if self.count > self._skip:
                yield line

    def _rows(self) -> Iterator[InputLine]:
        """The rows of a Parquet file; row groups that are done are not read again."""
        path = self._asked.source
        with open_parquet(path) as file:
            share = Path(path).stat().st_size / max(1, file.metadata.num_rows)
        self.count = self._skip
        for line in parquet_lines(path, self._skip):
            self.count += 1
            if self.count % _STEP == 0:
                self._progress(int(self.count * share))
            yield line

    def _record(self, line: InputLine, topic: str, make: LineReader, encode: Any) -> KafkaRecord:
        """The record of a line; one that does not fit takes its way as it does in a stream, and no key."""
        if self._asked.whole:
            return make(line)
        try:
            found = make(line)
            return found if self._plan.source.reads is not Reads.PAYLOAD else encode(found, line.where)
        except InputError:
            return KafkaRecord(topic, None, line.text)


class _bar:
    """A progress bar over the bytes of a file, on standard error; none where that is no terminal."""

    def __init__(self, source: Path) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn(source.name),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("bytes"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._progress.add_task("", total=source.stat().st_size)

    def __enter__(self) -> tuple[Progress, Any]:
        self._progress.start()
        return self._progress, self._task

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _told(counts: FlowCounts) -> str:
    failed = sum(counts.failed.values())
    outputs = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.outputs.items()) if count)
    return (
        f"{counts.read:,} read, {counts.written:,} written, {counts.dropped:,} dropped, {failed:,} failed"
        f"{'; results: ' + outputs if outputs else ''}"
    )
