"""One run of the numbers flow: its topics, its config, its process, and the verdict on what came out."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.kafka.crash.verify import Verdict, seen, verify
from tests.support.broker import Broker, FreshTopics
from tests.support.engines import chosen_engine
from tests.support.flow_process import FlowProcess
from tests.support.kafka_io import ReadRecord, end_offsets, group_positions, produce_numbered, read_all
from tests.support.load import Load
from tests.support.waiting import LONG_S

PARTITIONS = 4
FLOWS = Path(__file__).resolve().parents[1] / "kafka"


class NumbersRun:
    """Topics of its own on a broker, and the flow as a process."""

    def __init__(
        self,
        broker: Broker,
        directory: Path,
        *,
        runtime: dict[str, Any] | None = None,
        workers: int = 1,
        producer: dict[str, Any] | None = None,
        target: str = "numbers_flow:flow",
        group: str | None = None,
        process: dict[str, Any] | None = None,
        outputs: tuple[str, ...] = ("even", "odd", "errors"),
        **consumer: Any,
    ) -> None:
        fresh = FreshTopics(broker)
        self.bootstrap = broker.bootstrap
        self.delivery = consumer.setdefault("delivery", "at_least_once")
        self.source = fresh.create("numbers-in", PARTITIONS)
        self.outputs = {name: fresh.create(f"numbers-{name}", PARTITIONS) for name in outputs}
        self.group = group or fresh.name("numbers")
        config = {
            "kafka": {
                "consumer": {
                    "brokers": [self.bootstrap],
                    "group_id": self.group,
                    "topics": [self.source],
                    **consumer,
                },
                "producer": {"brokers": [self.bootstrap], **(producer or {})},
                "producers": {f"numbers.{name}": {"topic": topic} for name, topic in self.outputs.items()},
            },
            "streaming": {"engine": chosen_engine(), "runtime": {"workers_per_process": workers, **(runtime or {})}},
        }
        path = directory / "numbers.yaml"
        path.write_text(yaml.safe_dump(config))
        self.flow = FlowProcess(
            target, config=path, directory=directory, pythonpath=[FLOWS, FLOWS / "crash"], **(process or {})
        )

    @contextmanager
    def producing(self, count: int, rate: float) -> Iterator[threading.Thread]:
        """Numbers arrive at `rate` per second while the block runs; its end waits for the last one."""
        failures: list[BaseException] = []

        def produce() -> None:
            try:
                self.produce(count, rate)
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        yield thread
        thread.join()
        assert not failures, failures

    def load(self, rate: float) -> Load:
        """Numbers that arrive at `rate` per second from its start until it is told that it is enough."""
        return Load(self.bootstrap, self.source, rate=rate, partitions=PARTITIONS)

    def produce(self, count: int, rate: float | None = None, *, start: int = 0) -> None:
        """Write the numbers `start` … to the source."""
        produce_numbered(
            self.bootstrap,
            self.source,
            count,
            start=start,
            rate=rate,
            partitions=PARTITIONS,
            value=lambda n: b'{"n":%d}' % n,
        )

    def ends(self) -> dict[int, int]:
        """The end of the source, by partition."""
        return end_offsets(self.bootstrap, self.source)

    def await_all_confirmed(self, timeout: float = LONG_S) -> None:
        """Wait until the group stands at the end of the source."""
        self.flow.await_positions(self.bootstrap, self.group, self.source, self.ends(), timeout)

    def lag(self) -> int:
        """How many records of the source the group has not confirmed."""
        positions = group_positions(self.bootstrap, self.group, self.source)
        return sum(end - positions.get(part, 0) for part, end in end_offsets(self.bootstrap, self.source).items())

    def arrived(self) -> list[ReadRecord]:
        """What stands in the source."""
        return read_all(self.bootstrap, self.source)

    def written(self) -> dict[str, list[ReadRecord]]:
        """What a reader of committed records finds in each output."""
        return {
            name: list(read_all(self.bootstrap, topic, isolation="read_committed"))
            for name, topic in self.outputs.items()
        }

    def verdict(self, count: int) -> Verdict:
        """What became of the first `count` numbers, as a reader sees it that asks for committed records only."""
        found = [one for records in self.written().values() for one in seen(records, _number_of)]
        return verify(range(count), found, lambda n: n % PARTITIONS)

    def killed_at_random(self, count: int, *, rate: float, every: tuple[float, float], rng: random.Random) -> int:
        """Produce so many at this rate while the flow is killed again and again, and see it through; returns the kills.

        `every` is between how many seconds a flow may live.
        """
        kills = 0
        with self.flow, self.producing(count, rate) as producer:
            while producer.is_alive():
                self.flow.start()
                producer.join(rng.uniform(*every))
                if producer.is_alive():
                    assert self.flow.alive, self.flow.tail()
                    self.flow.sigkill()
                    kills += 1
            if not self.flow.alive:
                self.flow.start()
            self.await_all_confirmed()
            self.stop()
        return kills

    def stopped_again_and_again(self, count: int, *, rate: float, every: float) -> None:
        """Produce so many at this rate while the flow is stopped in order and started again, and see it through.

        `every` is for how many seconds a flow works.
        """
        with self.flow, self.producing(count, rate) as producer:
            while producer.is_alive():
                self.flow.start()
                self.flow.await_line("flow_started")
                producer.join(every)
                self.stop()
            self.flow.start()
            self.await_all_confirmed()
            self.stop()

    def assert_nothing_twice(self, count: int) -> None:
        """Nothing lost, nothing twice, everything in order, whatever the guarantee."""
        verdict = self.verdict(count)
        assert verdict.exactly_once, verdict.describe()

    def assert_promise_kept(self, count: int) -> None:
        """Nothing lost and everything in order; under exactly once nothing twice."""
        verdict = self.verdict(count)
        assert verdict.at_least_once, verdict.describe()
        assert not verdict.disorder, verdict.describe()
        if self.delivery == "exactly_once":
            assert verdict.exactly_once, verdict.describe()

    def stop(self, *, says_start: bool = True) -> None:
        """SIGTERM, exit code 0. A flow that is not up yet is waited for first.

        One that is not run by the runner does not say that it starts; then the caller must know that it is up.
        """
        if says_start:
            self.flow.await_line("flow_started")
        self.flow.sigterm()
        code = self.flow.wait(LONG_S)
        assert code == 0, f"exit {code}:\n{self.flow.tail()}"


def _number_of(record: ReadRecord) -> int:
    assert record.value is not None
    number = json.loads(record.value)["n"]
    assert isinstance(number, int)
    return number
