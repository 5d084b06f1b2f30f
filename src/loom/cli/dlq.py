"""The dead letters of a flow: where they are, how they are found among others, and how they are told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loom.cli.clusters import reading_settings
from loom.cli.decoders import plan_of
from loom.cli.exit_codes import InputError
from loom.cli.offsets import parse_target
from loom.cli.project import project_flow
from loom.cli.records import TopicDecoder, record_document, text_of
from loom.cli.topics import needed_topics
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import walk_nodes
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.headers import Headers
from loom.streaming.kafka.dead_letters import DeadLetter, letter_reader
from loom.streaming.kafka.replay_marks import MARKS_TOPIC, ReplayMarks
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.record import TopicPartition

if TYPE_CHECKING:
    from loom.streaming.kafka.log_reader import LogReader
    from loom.streaming.kafka.offset_reset import LogRange

__all__ = ["GROUP_KEYS", "Found", "LetterFilter", "LetterScene", "group_of", "letter_document", "place_of", "scene_of"]

GROUP_KEYS = ("topic", "kind", "step", "reason", "type", "flow", "at", "hour", "day")
#: characters of a reason in a table
_LONGEST = 60


class Found(LoomFrozenStruct):
    """A dead letter, and whether it has been replayed."""

    letter: DeadLetter
    replayed: bool


class LetterFilter(LoomFrozenStruct):
    """Which letters are meant; what is not said does not matter."""

    kinds: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    partition: int | None = None
    offset: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Whether a letter is meant."""
        record = letter.record
        time = record.timestamp_ms or 0
        return (
            (not self.kinds or letter.kind in self.kinds)
            and (not self.steps or letter.step in self.steps)
            and (not self.types or _matches(letter.error_type, self.types))
            and (self.reason is None or re.search(self.reason, letter.reason) is not None)
            and (self.since_ms is None or time >= self.since_ms)
            and (self.until_ms is None or time < self.until_ms)
            and self.partition in (None, record.partition)
            and self.offset in (None, record.offset)
        )


def _matches(error_type: str | None, types: tuple[str, ...]) -> bool:
    """A type is named in full, or by its last part."""
    return error_type is not None and any(error_type == one or error_type.endswith(f".{one}") for one in types)


class LetterScene:
    """The topics with the dead letters of a flow, and the cluster that holds them."""

    def __init__(
        self,
        settings: ConsumerSettings,
        topics: Mapping[str, tuple[int, ...]],
        plan: CompiledPlan | None,
        ids: Mapping[str, str],
        marks: tuple[int, ...],
    ) -> None:
        self.settings = settings
        self.topics = topics
        self.plan = plan
        self.marks = ReplayMarks(ids)
        self._ids = ids
        self._marks_partitions = marks
        self._read = letter_reader(_payloads(plan))
        self._decoders: dict[str, TopicDecoder] = {}

    @property
    def partitions(self) -> list[TopicPartition]:
        """Every partition of the topics."""
        return [TopicPartition(topic, number) for topic, numbers in self.topics.items() for number in numbers]

    def load_marks(self, reader: LogReader, partitions: tuple[int, ...] | None = None) -> None:
        """Read which letters have been replayed; `partitions` are those of the marks' topic by now."""
        numbers = self._marks_partitions if partitions is None else partitions
        self.marks = ReplayMarks(self._ids)
        self.marks.load(reader, [TopicPartition(MARKS_TOPIC, number) for number in numbers])

    def letters(
        self, reader: LogReader, chosen: LetterFilter, logs: Mapping[TopicPartition, LogRange]
    ) -> Iterator[Found]:
        """The letters that are meant, in order within a partition."""
        wanted = {p: log for p, log in logs.items() if chosen.partition in (None, p.partition)}
        if chosen.offset is None:
            start, ends = {p: log.low for p, log in wanted.items()}, {p: log.high for p, log in wanted.items()}
        else:
            start = {p: max(log.low, chosen.offset) for p, log in wanted.items()}
            ends = {p: min(log.high, chosen.offset + 1) for p, log in wanted.items()}
        for record in reader.read(start, ends):
            letter = self._read(record)
            if chosen.takes(letter):
                place = (record.topic, record.partition or 0, record.offset or 0)
                yield Found(letter, place in self.marks)

    def document(self, found: Found) -> dict[str, Any]:
        """A letter as JSON; see `letter_document`."""
        topic = found.letter.original.topic
        if topic not in self._decoders:
            self._decoders[topic] = TopicDecoder(self.plan, topic)
        return letter_document(found, self._decoders[topic])


def _payloads(plan: CompiledPlan | None) -> Any:
    types = {node.step_id: node.accepts.types for node in walk_nodes(plan.nodes)} if plan is not None else {}

    def payload_of(step: str | None) -> Any:
        found = types.get(step, ())  # type: ignore[call-overload]
        return found[0] if len(found) == 1 else Any

    return payload_of


def scene_of(flow: str | None, config: Path | None, brokers: str | None, topics: list[str]) -> LetterScene:
    """The dead letters of a flow, or those in the topics that are named.

    Raises `TopicMissingError` for a topic that does not exist, `InputError` for a flow without topics of dead letters.
    """
    from loom.streaming.kafka.topic_admin import TopicAdmin

    plan = plan_of(flow, config) if flow is not None or brokers is None else None
    if plan is not None:
        settings = plan.source.settings
    elif topics:
        settings = reading_settings(config, brokers)
    else:
        project_flow(flow)  # says that none is named
        raise InputError("--brokers needs --topic: a flow says where its dead letters are in its config")
    if plan is not None and not topics:
        needed = [one for one in needed_topics(plan) if one.dead_letters]
        topics = [one.name for one in needed]
        elsewhere = [one.name for one in needed if not one.cluster.reaches_same_cluster(plan.source.cluster.properties)]
        if elsewhere:
            raise InputError(
                f"{elsewhere[0]} is on another cluster than the source: name it with --topic and --brokers"
            )
        if not topics:
            raise InputError(f"the flow {plan.name!r} writes no dead letters to a topic: give it errors=IntoTopic(…)")
    admin = TopicAdmin(settings.to_confluent_config())
    known = admin.topics()
    found = {name: tuple(one.number for one in info.partitions) for name, info in admin.existing(topics).items()}
    marks = tuple(one.number for one in known[MARKS_TOPIC].partitions) if MARKS_TOPIC in known else ()
    return LetterScene(settings, found, plan, admin.topic_ids(found), marks)


def letter_document(found: Found, decode: TopicDecoder) -> dict[str, Any]:
    """A letter as JSON: what was said of the failure, and the original record as `loom topics produce --records` takes it."""
    letter = found.letter
    record, original = letter.record, letter.original
    document = {
        "dead_letter": place_of(letter),
        "failed": record.timestamp_ms,
        "replayed": found.replayed,
        "written_by": letter.written_by,
        "kind": letter.kind,
        "step": letter.step,
        "path": list(letter.path),
        "index": letter.index or None,
        "reason": letter.reason,
        "type": letter.error_type,
        "at": letter.at,
        "flow": letter.flow,
        "count": letter.count,
        "entered": letter.entered,
        "stack": letter.stack,
    }
    return {
        **{name: value for name, value in document.items() if value not in (None, [])},
        **record_document(original, decode(original)),
    }


def place_of(letter: DeadLetter) -> str:
    """Where a letter is."""
    return f"{letter.record.topic}[{letter.record.partition}]@{letter.record.offset}"


def group_of(letter: DeadLetter, keys: list[str]) -> tuple[str, ...]:
    """The group of a letter: what it has under each key. Numbers in a reason do not distinguish letters.

    >>> from loom.streaming.record import KafkaRecord
    >>> record = KafkaRecord("errors", None, None, timestamp_ms=0)
    >>> group_of(DeadLetter(record, "loom", record, "task", reason="no price for 17"), ["kind", "reason", "day"])
    ('task', 'no price for #', '1970-01-01')
    """
    time = datetime.fromtimestamp((letter.record.timestamp_ms or 0) / 1000, UTC)
    said = {
        "topic": letter.record.topic,
        "kind": letter.kind or letter.written_by,
        "step": letter.step,
        "reason": re.sub(r"\d+", "#", letter.reason),
        "type": (letter.error_type or "").rpartition(".")[2],
        "flow": letter.flow,
        "at": letter.at,
        "hour": time.strftime("%Y-%m-%dT%H"),
        "day": time.strftime("%Y-%m-%d"),
    }
    return tuple((said[key] or "-")[:_LONGEST] for key in keys)


def moment(text: str | None, option: str) -> int | None:
    """A time on the command line, in milliseconds. Raises `InputError`."""
    if text is None:
        return None
    try:
        found = parse_target(text).time_ms
    except InputError:
        found = None
    if found is None:
        raise InputError(f"{option} takes a time such as 2026-01-31T12:00:00Z, not {text!r}")
    return found


def shown_headers(letter: DeadLetter) -> list[tuple[str, Any]]:
    """The headers of the original record."""
    return [(name, text_of(value)) for name, value in Headers.of(letter.original.headers).pairs]
