"""A source, an output, a group and a flow from one to the other on a real broker, run in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from tests.support.broker import Broker, FreshTopics
from tests.support.kafka_io import Isolation, create_topic, delete_topic, produce_numbered, read_all
from tests.support.running import all_done, config_for, positions
from tests.support.waiting import LONG_S, until


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


@step
def nothing(number: Number) -> Number | None:
    return None


class OneWay:
    """A source and an output of their own, a group, and a flow from one to the other."""

    def __init__(self, broker: Broker, fresh: FreshTopics) -> None:
        self.bootstrap = broker.bootstrap
        self.fresh = fresh
        self.source, self.out = fresh.create("in"), fresh.create("out")
        self.group = fresh.name("group")

    def flow(self, *nodes: Any) -> StreamFlow[Any, Any]:
        return StreamFlow("standing", FromTopic("in", Number), Process(*(nodes or (same,))), IntoTopic("out"))

    def config(self, **consumer: Any) -> dict[str, Any]:
        given = {"delivery": "at_least_once", "topics": [self.source], "group_id": self.group, **consumer}
        made = config_for(self.bootstrap, consumer=given)
        made["kafka"]["producers"] = {"out": {"topic": self.out}}
        return made

    def runner(self, *nodes: Any, **consumer: Any) -> StreamingRunner:
        return StreamingRunner.from_dict(self.flow(*nodes), self.config(**consumer))

    def write(self, count: int, *, start: int = 0) -> None:
        produce_numbered(self.bootstrap, self.source, count, start=start, partitions=1, value=lambda n: b'{"n":%d}' % n)

    def written(self, isolation: Isolation = "read_committed") -> list[int]:
        found = read_all(self.bootstrap, self.out, isolation=isolation)
        return [int((record.value or b"")[5:-1]) for record in found]

    def position(self) -> int | None:
        return positions(self.bootstrap, self.source, self.group).get(0)

    def cut(self, before: int) -> None:
        """As retention does: the records before an offset are deleted."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        where = ClientPartition(self.source, 0, before)
        admin.delete_records([where])[where].result(LONG_S)

    def make_anew(self) -> None:
        """Delete the source and make it again, under its name."""
        delete_topic(self.bootstrap, self.source)
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        until(lambda: self.source not in admin.list_topics(timeout=LONG_S).topics)
        create_topic(self.bootstrap, self.source)


@contextmanager
def running(runner: StreamingRunner) -> Iterator[list[BaseException]]:
    """The run in a thread of its own, stopped and awaited at the end of the block; the list holds what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            runner.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        runner.shutdown()
        thread.join(LONG_S)
        assert not thread.is_alive()


def accounted(runner: StreamingRunner, count: int) -> Callable[[], bool]:
    return lambda: runner.metrics is not None and all_done(count)(runner.metrics.read())
