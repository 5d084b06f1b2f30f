"""`loom dlq replay`: which dead letters are replayed where, and the replay itself."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from loom.cli.dlq import Found, LetterFilter, LetterScene, place_of
from loom.cli.exit_codes import InputError
from loom.core.errors import LoomError
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.replay_steps import ReplayRefusedError, replay_entry
from loom.streaming.formats.format import Encoding
from loom.streaming.formats.registry import reading_of
from loom.streaming.kafka.dead_letters import DeadLetter, replayed_headers
from loom.streaming.kafka.record_headers import REPLAY_OF, REPLAY_STEP
from loom.streaming.kafka.replay_marks import MARKS_TOPIC
from loom.streaming.kafka.settings import ProducerSettings
from loom.streaming.kafka.topic_admin import TopicAdmin, TopicRequest
from loom.streaming.record import KafkaRecord, TopicPartition

if TYPE_CHECKING:
    from loom.streaming.kafka.log_reader import LogReader
    from loom.streaming.kafka.offset_reset import LogRange
    from loom.streaming.kafka.replay_writer import Replayed

__all__ = ["ReplayOrder", "ReplayPlan", "plan_replay", "run_replay"]

#: the most letters of one transaction
_BATCH = 500


class ReplayOrder(LoomFrozenStruct):
    """What was asked for."""

    chosen: LetterFilter
    into_step: bool = False
    to: str | None = None
    #: a letter that has failed more often stays
    most_failures: int = 5
    #: letters a second; `None` for no limit
    rate: float | None = None
    limit: int | None = None


class ReplayPlan(LoomFrozenStruct):
    """What would be done: letters by target, those that stay by reason, and why a target is refused."""

    targets: dict[str, int]
    staying: dict[str, int]
    refused: dict[str, int]


class _Stays(Exception):
    """A letter is not replayed, for a reason that is nobody's mistake."""


class _Targets:
    """Where letters go."""

    def __init__(self, scene: LetterScene, order: ReplayOrder, partitions: dict[str, int]) -> None:
        self._scene = scene
        self._order = order
        #: how many partitions each topic of the cluster has
        self._partitions = partitions

    def of(self, found: Found) -> tuple[str, Replayed]:
        """The name of the target and the record for it. Raises `_Stays` or `ReplayRefusedError`."""
        from loom.streaming.kafka.replay_writer import Replayed

        letter, original = found.letter, found.letter.original
        if found.replayed:
            raise _Stays("replayed already")
        if letter.count > self._order.most_failures:
            raise _Stays(f"failed more often than --max-failures {self._order.most_failures}")
        if letter.written_by == "unknown":
            raise ReplayRefusedError("it does not say what it is a dead letter of")
        headers = {REPLAY_OF: place_of(letter).encode()}
        key, value, target = original.key, original.value, self._order.to or self._source_of(letter)
        name = target
        if self._order.to is None and (self._order.into_step or letter.entered is not None):
            step, key, value = self._into_step(letter)
            headers[REPLAY_STEP] = step.encode()
            target = self._reading_topic(original.topic)
            name = f"{target}, into {step}"
        elif letter.entered is not None:
            raise ReplayRefusedError(
                f"it holds what the step {letter.entered!r} takes, which another topic has no use for"
            )
        if target not in self._partitions:
            raise ReplayRefusedError(f"its topic {target!r} does not exist")
        same = target == original.topic and original.partition is not None
        partition = original.partition if same and (original.partition or 0) < self._partitions[target] else None
        record = KafkaRecord(target, key, value, replayed_headers(letter, headers), timestamp_ms=original.timestamp_ms)
        return name, Replayed(target, record, partition)

    def _source_of(self, letter: DeadLetter) -> str:
        if not letter.original.topic:
            raise ReplayRefusedError("it does not say from which topic it is: use --to")
        return letter.original.topic

    def _reading_topic(self, topic: str) -> str:
        plan = self._scene.plan
        assert plan is not None
        return topic if topic in plan.source.topics else plan.source.topics[0]

    def _into_step(self, letter: DeadLetter) -> tuple[str, bytes | None, bytes | None]:
        """The step that a letter enters, and the key and value that its record then has."""
        plan = self._scene.plan
        if plan is None:
            raise InputError("--into-step needs the flow: write MODULE:FLOW")
        if not plan.source.settings.replay_steps:
            raise ReplayRefusedError(
                "its flow does not look for such records: set kafka.consumer.replay_steps: true, and start it anew"
            )
        step = letter.entered or letter.step
        if letter.written_by != "loom" or step is None:
            raise ReplayRefusedError("it names no step of a flow")
        entry = replay_entry(plan, step)
        original = letter.original
        if letter.entered is not None or (entry.takes_source and letter.message is None):
            return step, original.key, original.value
        if letter.message is None:
            raise ReplayRefusedError(
                f"steps before {step!r} have made what it takes, and the dead letter holds the record as it was read: "
                "replay it to the source, or let the error topic keep what a step was given (format: envelope)"
            )
        wire_format = plan.source.settings.format
        value = reading_of(wire_format).format.encoder(Encoding())(letter.message.payload)
        return step, letter.message.meta.key, value


def plan_replay(
    scene: LetterScene, reader: LogReader, order: ReplayOrder, logs: dict[TopicPartition, LogRange]
) -> ReplayPlan:
    """What a replay would do with the letters that are there."""
    targets = _Targets(scene, order, _partitions(scene))
    counts: dict[str, Counter[str]] = {"to": Counter(), "stays": Counter(), "refused": Counter()}
    for found in scene.letters(reader, order.chosen, logs):
        if order.limit is not None and counts["to"].total() >= order.limit:
            break
        try:
            counts["to"][targets.of(found)[0]] += 1
        except _Stays as stays:
            counts["stays"][str(stays)] += 1
        except (ReplayRefusedError, msgspec.MsgspecError) as refused:
            counts["refused"][str(refused)] += 1
    return ReplayPlan(dict(counts["to"]), dict(counts["stays"]), dict(counts["refused"]))


def run_replay(
    scene: LetterScene,
    reader: LogReader,
    order: ReplayOrder,
    logs: dict[TopicPartition, LogRange],
    settings: ProducerSettings,
    progress: threading.Event | None = None,
) -> int:
    """Replay, and return how many letters were.

    Each transaction holds replayed records and the marks that say so. A replay that is killed leaves nothing half done, and
    the next one continues; two at once are impossible, since the later one shuts the earlier one out.
    """
    from loom.streaming.kafka.replay_writer import ReplayWriter

    admin = TopicAdmin(settings.to_confluent_config())
    topics = admin.topics()
    numbers: tuple[int, ...] = (0,)
    if MARKS_TOPIC in topics:
        numbers = tuple(one.number for one in topics[MARKS_TOPIC].partitions)
    else:
        admin.create([TopicRequest(MARKS_TOPIC, 1, config={"cleanup.policy": "compact"})])
    targets = _Targets(scene, order, _partitions(scene))
    limits = _limits(admin, [name for name in {*scene.topics, *_sources(scene, order)} if name in topics])
    writer = ReplayWriter(settings.to_confluent_config(), f"loom-dlq@{'+'.join(sorted(scene.topics))}", limits)
    pause = progress or threading.Event()
    done, started = 0, time.monotonic()
    try:
        writer.fence()
        # Only now: an earlier replay can change nothing any more.
        scene.load_marks(reader, numbers)
        for batch in _batches(scene, reader, order, logs, targets):
            places = [(p.record.topic, p.record.partition or 0, p.record.offset or 0) for p, _ in batch]
            writer.write([record for _, record in batch], scene.marks.mark(places), MARKS_TOPIC)
            done += len(batch)
            if order.rate is not None:
                pause.wait(max(0.0, started + done / order.rate - time.monotonic()))
    finally:
        writer.close()
    return done


def _batches(
    scene: LetterScene,
    reader: LogReader,
    order: ReplayOrder,
    logs: dict[TopicPartition, LogRange],
    targets: _Targets,
) -> Iterator[list[tuple[DeadLetter, Replayed]]]:
    size = _BATCH if order.rate is None else max(1, min(_BATCH, int(order.rate)))
    batch: list[tuple[DeadLetter, Replayed]] = []
    taken = 0
    for found in scene.letters(reader, order.chosen, logs):
        if order.limit is not None and taken >= order.limit:
            break
        try:
            batch.append((found.letter, targets.of(found)[1]))
        except _Stays:
            continue
        except ReplayRefusedError as refused:
            raise LoomError(f"{place_of(found.letter)} cannot be replayed: {refused}") from refused
        taken += 1
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _partitions(scene: LetterScene) -> dict[str, int]:
    found = TopicAdmin(scene.settings.to_confluent_config()).topics()
    return {name: len(info.partitions) for name, info in found.items()}


def _sources(scene: LetterScene, order: ReplayOrder) -> set[str]:
    return {*(scene.plan.source.topics if scene.plan is not None else ()), *([order.to] if order.to else [])}


def _limits(admin: TopicAdmin, topics: list[str]) -> dict[str, int]:
    found = admin.configs(topics, only_set=False)
    return {
        name: int(properties["max.message.bytes"])
        for name, properties in found.items()
        if "max.message.bytes" in properties
    }
