"""`loom topics` and `loom offsets` against Apache Kafka: what is created, and that a moved group is read as it was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer

from loom.cli.exit_codes import Exit
from loom.streaming.kafka.client_properties import ClientProperties
from loom.streaming.kafka.offset_metadata import OffsetMetadata
from loom.streaming.kafka.topic_admin import TopicAdmin
from tests.kafka.conftest import LoomCommand
from tests.support.broker import Broker, FreshTopics
from tests.support.kafka_io import produce_numbered
from tests.support.numbers_run import PARTITIONS, NumbersRun
from tests.support.waiting import LONG_S


def test_the_topics_of_a_flow_are_created_as_asked_and_only_those_that_are_missing(
    kafka: Broker, fresh_topics: FreshTopics, tmp_path: Path, loom_command: LoomCommand
) -> None:
    names = {name: fresh_topics.name(name) for name in ("in", "even", "odd", "errors")}
    kafka.create_topic(names["in"], 3, {"max.message.bytes": "2000000"})
    config = {
        "kafka": {
            "consumer": {
                "brokers": kafka.bootstrap,
                "group_id": "g",
                "topics": [names["in"]],
                "delivery": "at_least_once",
            },
            "producer": {"brokers": kafka.bootstrap},
            "producers": {f"numbers.{name}": {"topic": names[name]} for name in ("even", "odd", "errors")},
        }
    }
    arguments = ("topics", "create", "numbers_flow:flow", "--partitions", "2", "--set", "retention.ms=1000")
    admin = TopicAdmin(ClientProperties({"bootstrap.servers": kafka.bootstrap}))

    planned = loom_command(config, *arguments, "--dry-run")
    assert planned.returncode == Exit.DONE, planned.stderr
    assert planned.stdout.count("would be created") == 3
    assert names["even"] not in admin.topics()

    assert loom_command(config, *arguments).returncode == Exit.DONE
    found, properties = admin.topics(), admin.configs(names.values())
    assert [len(found[names[name]].partitions) for name in ("in", "even", "odd", "errors")] == [3, 2, 2, 2]
    assert properties[names["even"]] == {"retention.ms": "1000"}
    assert properties[names["errors"]] == {"retention.ms": "1000", "max.message.bytes": "2002048"}
    assert properties[names["in"]] == {"max.message.bytes": "2000000"}

    again = loom_command(config, *arguments, "--json")
    assert [one["state"] for one in json.loads(again.stdout)] == ["exists"] * 4
    refused = loom_command(config, "topics", "create", fresh_topics.name(), "--replication", "9")
    assert refused.returncode == Exit.FAILED
    assert "cannot be created" in refused.stderr


def test_a_reset_group_is_read_again_and_a_run_that_is_alive_gives_way(
    kafka: Broker, tmp_path: Path, loom_command: LoomCommand
) -> None:
    run = NumbersRun(kafka, tmp_path, delivery="exactly_once", runtime={"epoch_interval_ms": 100})
    config = tmp_path / "numbers.yaml"
    run.produce(40)

    def show() -> list[dict[str, Any]]:
        told = loom_command(config, "offsets", "show", "numbers_flow:flow", "--json")
        assert told.returncode == Exit.DONE, told.stderr
        partitions: list[dict[str, Any]] = json.loads(told.stdout)["partitions"]
        return partitions

    with run.flow:
        run.flow.start()
        run.await_all_confirmed()
        before = show()
        assert {one["lag"] for one in before} == {0}
        moved = loom_command(config, "offsets", "reset", "numbers_flow:flow", "--to", "5", "--execute")
        assert moved.returncode == Exit.DONE, moved.stderr
        after = show()
        assert [one["offset"] for one in after] == [5] * PARTITIONS
        assert {one["lag"] for one in after} != {0}
        assert {one["flow"] for one in after} == {"numbers"}
        assert {one["run"] for one in after} != {one["run"] for one in before}
        produce_numbered(
            kafka.bootstrap, run.source, 4, start=40, partitions=PARTITIONS, value=lambda n: b'{"n":%d}' % n
        )
        assert run.flow.wait(LONG_S) == Exit.REPLACED, run.flow.tail()
        run.flow.start()
        run.await_all_confirmed()
        run.stop()
    read_again = sum(1 for n in range(40) if n // PARTITIONS >= 5)
    verdict = run.verdict(44)
    assert not verdict.lost, verdict.describe()
    assert verdict.duplicates == read_again, verdict.describe()


def test_a_group_with_members_is_not_moved(
    kafka: Broker, fresh_topics: FreshTopics, tmp_path: Path, loom_command: LoomCommand
) -> None:
    topic, group = fresh_topics.create("shared"), fresh_topics.name("group")
    produce_numbered(kafka.bootstrap, topic, 3)
    config = {"kafka": {"consumer": {"brokers": kafka.bootstrap, "group_id": group}}}
    reset = ("offsets", "reset", "--group", group, "--topic", topic, "--to", "latest", "--execute")
    member = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    try:
        member.subscribe([topic])
        assert member.poll(30) is not None
        told = loom_command(config, *reset)
        assert told.returncode == Exit.REPLACED
        assert "consumers are subscribed with the group" in told.stderr
    finally:
        member.close()
    assert loom_command(config, *reset, "--json").returncode == Exit.DONE
    shown = json.loads(loom_command(config, "offsets", "show", "-g", group, "-t", topic, "--json").stdout)
    assert [one["lag"] for one in shown["partitions"]] == [0]
    assert OffsetMetadata(flow=shown["partitions"][0]["flow"]).flow is None
