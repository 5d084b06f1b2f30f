"""`loom dlq replay` on Apache Kafka: every dead letter is processed once, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from loom.cli.exit_codes import Exit
from loom.streaming.kafka import Headers
from tests.support.broker import Broker, FreshTopics
from tests.support.flow_process import SOURCES, FlowProcess
from tests.support.fork_server import ForkedProcess, ForkServer
from tests.support.kafka_io import end_offsets, produce_numbered, read_all
from tests.support.waiting import LONG_S

FOLDER = Path(__file__).parent
PARTITIONS = 4


class Replays:
    """The flow with topics of its own, and the command beside it."""

    def __init__(
        self, kafka: Broker, directory: Path, server: ForkServer, *, consumer: dict[str, Any], errors: dict[str, Any]
    ) -> None:
        fresh = FreshTopics(kafka)
        self.server = server
        self.bootstrap, self.directory = kafka.bootstrap, directory
        self.topics = {name: fresh.create(name, PARTITIONS) for name in ("in", "out", "errors")}
        self.group = fresh.name("group")
        self.config = directory / "replayed.yaml"
        producers = {name: {"topic": topic} for name, topic in self.topics.items() if name != "in"}
        producers["errors"] |= errors
        section = {
            "kafka": {
                "consumer": {
                    "brokers": self.bootstrap,
                    "group_id": self.group,
                    "topics": [self.topics["in"]],
                    "delivery": "exactly_once",
                    **consumer,
                },
                "producer": {"brokers": self.bootstrap},
                "producers": producers,
            },
            "streaming": {"runtime": {"epoch_interval_ms": 100}},
        }
        self.config.write_text(yaml.safe_dump(section))
        self.calls = directory / "calls"
        self.flow = FlowProcess(
            "replay_flow:flow", config=self.config, directory=directory, pythonpath=[FOLDER], server=server
        )

    def fill(self, count: int) -> None:
        """Let so many records fail."""
        produce_numbered(
            self.bootstrap, self.topics["in"], count, partitions=PARTITIONS, value=lambda n: b'{"n":%d}' % n
        )
        self.flow.start(CALLS=str(self.calls))
        self.read_up()
        self.stop()

    def read_up(self) -> None:
        """Wait until the flow has read all that is there."""
        ends = end_offsets(self.bootstrap, self.topics["in"])
        self.flow.await_positions(self.bootstrap, self.group, self.topics["in"], ends)

    def stop(self) -> None:
        self.flow.sigterm()
        assert self.flow.wait(LONG_S) == Exit.DONE, self.flow.tail()

    def command(self, *arguments: str) -> ForkedProcess:
        """Start `loom dlq` with the flow."""
        command, *options = arguments
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(SOURCES), str(FOLDER)))}
        program = ["loom.cli.main", "dlq", command, "replay_flow:flow", "-c", str(self.config), *options]
        return self.server.start(program, cwd=self.directory, env=environment)

    def run(self, *arguments: str, code: int = Exit.DONE) -> str:
        """What a command prints."""
        process = self.command(*arguments)
        out, err = process.communicate(timeout=LONG_S)
        assert process.wait() == code, out + err
        return out

    def replayed(self) -> int:
        """How many records stand in the source beyond those that were produced, aborted ones too."""
        return sum(end_offsets(self.bootstrap, self.topics["in"]).values())

    def out(self) -> list[dict[str, Any]]:
        """What the flow has written, as a reader of committed records sees it."""
        records = read_all(self.bootstrap, self.topics["out"], isolation="read_committed")
        return [json.loads(record.value or b"") for record in records]


def test_ten_thousand_letters_are_processed_once_each_while_replay_and_flow_are_killed(
    kafka: Broker, tmp_path: Path, fork_server: ForkServer
) -> None:
    count = 10_000
    scene = Replays(kafka, tmp_path, fork_server, consumer={}, errors={})
    with scene.flow:
        scene.fill(count)
        scene.flow.start(FIXED="1")
        for kill in range(2):
            begun = scene.replayed()
            replay = scene.command("replay", "--execute", "--rate", "400")
            try:
                deadline = time.monotonic() + LONG_S
                while scene.replayed() < begun + 700 + 300 * kill:
                    assert replay.poll() is None, replay.communicate()
                    assert time.monotonic() < deadline
            finally:
                replay.kill()
                replay.communicate()
                replay.wait(LONG_S)
            if kill == 0:
                scene.flow.sigkill()
                scene.flow.start(FIXED="1")
        told = json.loads(scene.run("replay", "--execute", "--json"))
        assert 0 < told["replayed"] < count
        assert told["staying"] == {"replayed already": count - told["replayed"]}
        scene.read_up()
        scene.stop()

    assert Counter(one["n"] for one in scene.out()) == dict.fromkeys(range(count), 1)
    (group,) = json.loads(scene.run("list", "--by", "kind", "--json"))
    assert (group["letters"], group["replayed"]) == (count, count)
    *_, replayed = read_all(scene.bootstrap, scene.topics["in"], isolation="read_committed")
    assert Headers(replayed.headers)["x-error-count"] == b"1"
    assert Headers(replayed.headers)["x-loom-replay-of"].startswith(scene.topics["errors"].encode())


def test_letters_enter_at_the_step_that_failed_so_that_earlier_ones_do_not_run_again(
    kafka: Broker, tmp_path: Path, fork_server: ForkServer
) -> None:
    count = 300
    scene = Replays(kafka, tmp_path, fork_server, consumer={"replay_steps": True}, errors={"format": "envelope"})
    with scene.flow:
        scene.fill(count)
        calls = scene.calls.stat().st_size
        assert calls == count
        chosen = ("--into-step", "--reason", "[02468]$", "--execute", "--json")
        assert json.loads(scene.run("replay", *chosen))["replayed"] == count // 2
        # Not fixed yet: they fail again, where they have entered.
        scene.flow.start(CALLS=str(scene.calls))
        scene.read_up()
        scene.stop()
        listed = json.loads(scene.run("list", "--by", "step", "--json"))
        assert [(one["step"], one["letters"], one["replayed"]) for one in listed] == [
            ("replayed.price", count + count // 2, count // 2)
        ]
        scene.flow.start(FIXED="1", CALLS=str(scene.calls))
        assert json.loads(scene.run("replay", "--into-step", "--execute", "--json"))["replayed"] == count
        scene.read_up()
        scene.stop()

    assert scene.calls.stat().st_size == calls
    found = scene.out()
    assert Counter(one["n"] for one in found) == dict.fromkeys(range(count), 1)
    assert {one["prepared"] for one in found} == {1}


def test_what_cannot_enter_or_fails_too_often_stays(kafka: Broker, tmp_path: Path, fork_server: ForkServer) -> None:
    scene = Replays(kafka, tmp_path, fork_server, consumer={"replay_steps": True}, errors={})
    with scene.flow:
        scene.fill(8)
        refused = scene.run("replay", "--into-step", "--execute", code=Exit.FAILED)
        assert "steps before 'replayed.price' have made what it takes" in refused
        assert json.loads(scene.run("replay", "--execute", "--json"))["replayed"] == 8
        scene.flow.start()
        scene.read_up()
        scene.stop()
        told = json.loads(scene.run("replay", "--max-failures", "1", "--json"))
        assert told["staying"] == {"replayed already": 8, "failed more often than --max-failures 1": 8}
        assert told["targets"] == {}
        cut = json.loads(scene.run("purge", "--before", "2100-01-01", "--json"))
        assert [sum(one[name] for one in cut) for name in ("letters", "not_replayed")] == [16, 8]
        scene.run("purge", "--execute")
        assert [one["replayed"] for one in json.loads(scene.run("list", "--by", "kind", "--json"))] == [0]
