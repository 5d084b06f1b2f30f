"""`loom offsets`: what it shows, and that a reset keeps what the runtime keeps beside an offset."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from loom.cli.exit_codes import Exit, InputError
from loom.cli.offsets import parse_target
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord, TopicPartition
from loom.streaming.kafka.group_positions import metadata_after_reset
from loom.streaming.kafka.offset_metadata import Committed, OffsetMetadata
from tests.cli.conftest import Loom
from tests.support.running import produce

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
NUMBERS = {"a": (0, 1), "b": (0,)}


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def parsed(texts: dict[TopicPartition, str]) -> dict[TopicPartition, OffsetMetadata]:
    return {partition: OffsetMetadata.parse(text) for partition, text in texts.items()}


def test_a_reset_names_the_flow_and_all_writers_that_a_start_has_to_shut_out() -> None:
    had = OffsetMetadata("orders", "run1", "fixed", 3, 2).render()
    found = parsed(metadata_after_reset({A0: Committed(5, had), A1: Committed(6, had)}, [A0, A1], NUMBERS, "renamed"))
    assert {(one.flow, one.mode, one.writers, one.partitions) for one in found.values()} == {("orders", "fixed", 3, 2)}
    (run,) = {one.run for one in found.values()}
    assert run not in (None, "run1")


def test_a_partition_that_had_no_offset_gets_the_metadata_of_the_others() -> None:
    had = OffsetMetadata("orders", "run1", "fixed", 2, 1).render()
    found = parsed(metadata_after_reset({A0: Committed(5, had)}, [A1], NUMBERS))[A1]
    assert (found.flow, found.writers) == ("orders", 2)
    assert found.partitions == 2, "each partition of the topic has an offset now"


def test_a_partition_count_is_not_raised_while_a_partition_has_no_offset() -> None:
    alone = parsed(metadata_after_reset({}, [A0], NUMBERS, "or ders"))[A0]
    assert (alone.flow, alone.partitions) == ("or%20ders", None)
    assert parsed(metadata_after_reset({}, [A0, A1, B0], NUMBERS))[B0].partitions == 1


@pytest.mark.parametrize("text", ["", "now", "-1", "2026-13-01", "7.5"])
def test_what_is_no_place_to_move_to_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--to takes"):
        parse_target(text)


def test_a_time_without_a_zone_is_utc() -> None:
    assert parse_target("1970-01-02").time_ms == 86_400_000
    assert parse_target("1970-01-01T01:00:00+01:00").time_ms == 0


def test_a_group_is_shown_moved_and_shown_again(loom: Loom, broker: EmbeddedBroker) -> None:
    partitions = broker.create_topic("numbers")
    produce(
        broker.bootstrap,
        "numbers",
        *(KafkaRecord("numbers", None, b"%d" % n, partition=0, timestamp_ms=1000 + n) for n in range(5)),
    )
    config = loom.config(bootstrap=broker.bootstrap)

    def shown() -> dict[str, object]:
        found = json.loads(loom("offsets", "show", "flows:numbers", "-c", config, "--json").out)
        assert found["group"] == "readers"
        assert len(found["partitions"]) == partitions
        return dict(found["partitions"][0])

    assert (shown()["offset"], shown()["end"], shown()["lag"]) == (None, 5, None)
    planned = loom("offsets", "reset", "flows:numbers", "-c", config, "--to", "earliest")
    assert planned.out.endswith("nothing was changed: add --execute to do it\n")
    assert shown()["offset"] is None

    done = loom(
        "offsets", "reset", "flows:numbers", "-c", config, "--to", "3", "--partition", "0", "--execute", "--json"
    )
    assert json.loads(done.out)["partitions"] == [
        {"topic": "numbers", "partition": 0, "from": None, "to": 3, "read_again": 0, "skipped": 3}
    ]
    now = shown()
    assert (now["offset"], now["lag"], now["flow"]) == (3, 2, "numbers")
    assert isinstance(now["lag_ms"], int)
    assert now["lag_ms"] > 1_600_000_000_000, "the next record is from 1970"

    outside = loom("offsets", "reset", "flows:numbers", "-c", config, "--to", "9", "--execute")
    assert outside.code == Exit.ENVIRONMENT
    assert "numbers[0] holds 0 to 5" in outside.messages[0]
    assert shown()["offset"] == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "--brokers", "a:1", "--group", "g"), "--brokers needs --group and --topic"),
        (("reset", "flows:numbers", "--to", "soon"), "--to takes earliest"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_a_broker(loom: Loom, arguments: tuple[str, ...], says: str) -> None:
    told = loom("offsets", *arguments)
    assert told.code == Exit.USAGE
    assert says in told.messages[0]
