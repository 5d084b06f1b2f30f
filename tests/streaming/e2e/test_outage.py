"""A broker that goes away under a running flow: one line of ours, none of the client's."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.metrics import FlowCounts
from tests.support.running import all_done, config_for, positions, produce, run_until

pytestmark = pytest.mark.both_engines


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


def test_a_broker_that_is_away_is_said_once(broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", *[b'{"n":1}'] * 3)
    flow = StreamFlow("left", FromTopic("numbers", Number), Process(same), IntoTopic("out"))
    config = config_for(broker.bootstrap, consumer={"delivery": "at_least_once"})
    closed = False

    with capture_logs() as lines:

        def said(counts: FlowCounts) -> bool:
            nonlocal closed
            if not closed and all_done(3)(counts) and positions(broker.bootstrap, "numbers").get(0) == 3:
                broker.close()
                closed = True
            return bool(_named(lines, "broker_unavailable"))

        run_until(StreamingRunner.from_dict(flow, config), said)
    (line,) = _named(lines, "broker_unavailable")
    assert line["brokers"] == broker.bootstrap
    assert "cannot be reached" in line["reason"]
    assert not [record for record in caplog.records if record.name == "loom.streaming.kafka.client"]


def _named(lines: list[Any], event: str) -> list[Any]:
    return [line for line in lines if line["event"] == event]
