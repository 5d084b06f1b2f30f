"""The metadata of each committed offset: which flow and run wrote it, how many writers it has, how many partitions its topic.

One short text per offset, within the 4,096 bytes that brokers accept by default. Written by every commit of a flow; read at a
start and, for the run id, before each commit.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.record import TopicPartition

__all__ = ["MAX_WRITERS", "Committed", "OffsetMetadata", "RunMetadata", "escaped", "partition_counts"]

#: the version of the text; a reader ignores keys that it does not know, so only a change of meaning raises it
_VERSION = "loom/1"
#: what earlier versions of the product wrote
_WRITERS_ONLY = "loom-writers="
#: the bound of a layout's processes; a larger number was not written by us
MAX_WRITERS = 64
#: bytes of an escaped name; a longer one is cut and distinguished by a hash
_LONGEST_NAME = 512

_log = get_logger(__name__)


class OffsetMetadata(LoomFrozenStruct):
    """The metadata of one committed position; `None` for what it does not say."""

    flow: str | None = None  #: the flow's name, escaped
    run: str | None = None  #: the run that committed it
    mode: str | None = None  #: how its processes share the partitions: `fixed` or `group`
    writers: int | None = None  #: how many processes wrote for the group
    partitions: int | None = None  #: partitions of the topic, each of which has had a position

    def render(self) -> str:
        """The text that is committed with an offset.

        >>> OffsetMetadata("orders", "6f3c", "fixed", 1, 4).render()
        'loom/1 flow=orders run=6f3c mode=fixed writers=1 partitions=4'
        """
        said = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return " ".join([_VERSION, *(f"{name}={value}" for name, value in said if value is not None)])

    @classmethod
    def parse(cls, text: str) -> OffsetMetadata:
        """Metadata we do not recognise is empty.

        >>> OffsetMetadata.parse("loom/1 flow=orders run=6f3c mode=fixed writers=2 partitions=4").partitions
        4
        >>> OffsetMetadata.parse("loom-writers=3")
        OffsetMetadata(flow=None, run=None, mode=None, writers=3, partitions=None)
        >>> OffsetMetadata.parse("a note")
        OffsetMetadata(flow=None, run=None, mode=None, writers=None, partitions=None)
        """
        if text.startswith(_WRITERS_ONLY):
            return cls(writers=_number("writers", text.removeprefix(_WRITERS_ONLY), MAX_WRITERS))
        version, *parts = text.split(" ")
        if version != _VERSION:
            return cls()
        found = dict(part.partition("=")[::2] for part in parts)
        return cls(
            flow=found.get("flow") or None,
            run=found.get("run") or None,
            mode=found.get("mode") or None,
            writers=_number("writers", found["writers"], MAX_WRITERS) if "writers" in found else None,
            partitions=_number("partitions", found["partitions"]) if "partitions" in found else None,
        )


class Committed(LoomFrozenStruct):
    """A position that a group has, and the metadata committed with it."""

    offset: int
    metadata: str


def escaped(name: str) -> str:
    """A name as a part of a transactional id or of metadata: no space, no `@`, and never too long.

    >>> escaped("a@b c")
    'a%40b%20c'
    """
    text = quote(name, safe="", errors="surrogatepass")
    if len(text) <= _LONGEST_NAME:
        return text
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{text[: _LONGEST_NAME - 33]}~{digest}"


def partition_counts(committed: Mapping[TopicPartition, Committed]) -> dict[str, int]:
    """The partition count of each topic, as the positions of a group name it; a topic that none names is left out."""
    counts: dict[str, int] = {}
    for partition, had in committed.items():
        count = OffsetMetadata.parse(had.metadata).partitions
        if count is not None and count > counts.get(partition.topic, 0):
            counts[partition.topic] = count
    return counts


class RunMetadata:
    """What one run writes beside its positions. Shared by the workers of a process.

    `partitions` tells the partition numbers of each topic of the source. A topic's count is raised to theirs only when
    every one of them has a position: `found` and `covered` say which have.
    """

    def __init__(
        self,
        flow: str,
        partitions: Callable[[], Mapping[str, tuple[int, ...]]],
        *,
        writers: int | None = 1,
        mode: str = "fixed",
    ) -> None:
        self.flow = escaped(flow)
        self.run = uuid.uuid4().hex[:16]
        #: this and earlier ids of the run
        self._runs = {self.run}
        self.writers = writers
        #: how the processes share the partitions
        self.mode = mode
        self._partitions = partitions
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._covered: dict[str, set[int]] = {}
        self._texts: dict[str, str] = {}
        self._replaced = {self.flow}

    def begin_again(self) -> None:
        """Take a new run id: whoever still commits under the old one is recognised as another run."""
        with self._lock:
            self.run = uuid.uuid4().hex[:16]
            self._runs.add(self.run)
            self._texts.clear()

    def text(self, topic: str) -> str:
        """The metadata of a position in this topic."""
        text = self._texts.get(topic)
        if text is None:
            with self._lock:
                metadata = OffsetMetadata(self.flow, self.run, self.mode, self.writers, self._counts.get(topic))
                text = self._texts[topic] = metadata.render()
        return text

    def unclaimed(
        self, partitions: Iterable[TopicPartition], committed: Mapping[TopicPartition, Committed]
    ) -> list[TopicPartition]:
        """The partitions that this flow's layout has not taken over yet. `committed` is what the group has in their topics.

        A position must name this flow and its number of writers. A partition without one is open until its topic has such
        a position; later it is new, or its position has expired, and whoever reads it decides.
        """
        taken_over = {partition.topic for partition, had in committed.items() if self._claimed(had)}
        return [
            partition
            for partition in partitions
            if not (self._claimed(committed[partition]) if partition in committed else partition.topic in taken_over)
        ]

    def _claimed(self, had: Committed) -> bool:
        said = OffsetMetadata.parse(had.metadata)
        return (said.flow, said.mode, said.writers) == (self.flow, self.mode, self.writers)

    def replaces(self, committed: Iterable[Committed]) -> None:
        """Log, once, each flow of another name that committed these positions: this run takes its group over."""
        for had in committed:
            flow = OffsetMetadata.parse(had.metadata).flow
            with self._lock:
                if flow is None or flow in self._replaced:
                    continue
                self._replaced.add(flow)
            _log.warning(
                "flow_renamed",
                was=flow,
                now=self.flow,
                means="a flow of another name committed the group's offsets, and this one takes over; if both are "
                "meant to run, give each a group_id of its own",
            )

    def found(self, committed: Mapping[TopicPartition, Committed]) -> None:
        """The positions that the group has, of this run's partitions and their siblings."""
        with self._lock:
            for topic, count in partition_counts(committed).items():
                if count > self._counts.get(topic, 0):
                    self._counts[topic] = count
                    self._texts.pop(topic, None)
        self.covered(committed)

    def covered(self, partitions: Iterable[TopicPartition]) -> bool:
        """These partitions have a position now. Returns whether that changes the metadata to write."""
        raised = False
        with self._lock:
            for topic, number in partitions:
                self._covered.setdefault(topic, set()).add(number)
            for topic, numbers in self._partitions().items():
                if self._covered.get(topic, set()).issuperset(numbers) and self._counts.get(topic) != len(numbers):
                    self._counts[topic] = len(numbers)
                    self._texts.pop(topic, None)
                    raised = True
        return raised

    def of_another_run(self, topic: str, text: str) -> OffsetMetadata | None:
        """The metadata of another run, or `None` for our own. Metadata without a run is ignored."""
        if text == self._texts.get(topic):
            return None
        metadata = OffsetMetadata.parse(text)
        return metadata if metadata.run is not None and metadata.run not in self._runs else None


def _number(what: str, text: str, largest: int | None = None) -> int | None:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= (largest or int(text)):
        return int(text)
    _log.warning("offset_metadata_unreadable", key=what, found=text)
    return None
