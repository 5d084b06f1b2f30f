"""A record that kills the process under exactly-once: results, dead letter and positions stay one transaction meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

from loom.cli.exit_codes import Exit
from loom.streaming.kafka import Headers, KafkaRecord
from tests.cli.supervised import Supervised
from tests.support.broker import Broker, FreshTopics
from tests.support.kafka_io import read_all
from tests.support.running import produce
from tests.support.waiting import LONG_S

#: in each of two partitions, the second of which holds the record
RECORDS = 40
POISON = 25


def test_every_other_record_comes_out_once_and_the_dead_letter_too(
    kafka: Broker, fresh_topics: FreshTopics, tmp_path: Path
) -> None:
    source, out, bad = fresh_topics.create("numbers", 2), fresh_topics.create("out"), fresh_topics.create("bad")
    group = fresh_topics.name("readers")
    values = [
        (partition, json.dumps({"n": n, "end": "abort" if (partition, n) == (1, POISON) else ""}).encode())
        for partition in range(2)
        for n in range(RECORDS)
    ]
    produce(kafka.bootstrap, source, *(KafkaRecord(source, None, value, partition=p) for p, value in values))
    flow = Supervised(
        kafka.bootstrap,
        tmp_path,
        flow="routed",
        runtime={"epoch_interval_ms": 100},
        supervision={"on_poison": "dead_letter"},
        consumer={"topics": [source], "group_id": group, "delivery": "exactly_once", "batch_size": 1000},
        topics={"out": out, "bad": bad},
    )
    with flow:
        flow.start()
        flow.await_positions(kafka.bootstrap, group, source, {0: RECORDS, 1: RECORDS})
        # Behind the isolated records the run ends, and one as any other takes these.
        produce(kafka.bootstrap, source, KafkaRecord(source, None, b'{"n":0}', partition=1))
        flow.await_positions(kafka.bootstrap, group, source, {1: RECORDS + 1})
        flow.sigterm()
        assert flow.wait(LONG_S) == Exit.DONE, flow.output()
    written = [
        json.loads(record.value or b"")["n"] for record in read_all(kafka.bootstrap, out, isolation="read_committed")
    ]
    assert sorted(written) == sorted([0, *range(RECORDS), *(n for n in range(RECORDS) if n != POISON)])
    (letter,) = read_all(kafka.bootstrap, bad, isolation="read_committed")
    headers = Headers(letter.headers)
    assert headers["x-error-type"] == b"loom.ProcessKilled"
    assert (headers["x-error-partition"], headers["x-error-offset"]) == (b"1", b"%d" % POISON)
