"""What a topic will not take is known before it is sent, and a dead letter is made so that its topic takes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.kafka import DeliveryFailedError, EmbeddedBroker, KafkaRecord
from loom.streaming.kafka.limits import TimestampLimits
from tests.support.kafka_io import ReadRecord
from tests.support.running import QUICK, config_for, content, positions, produce, run_all
from tests.support.snapshots import see_otherwise

HOUR_MS = 3_600_000
REASON = "no " * 500


class Text(LoomFrozenStruct):
    text: str


@step
def same(text: Text) -> Text:
    if text.text.startswith("bad"):
        raise ValueError(REASON)
    return text


FLOW = StreamFlow(
    "writing", FromTopic("texts", Text), Process(same), IntoTopic("out", dlq="refused"), IntoTopic("errors")
)

Known = Callable[..., None]


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("texts", "out", "refused", "errors"):
        broker.create_topic(topic)
    return broker.bootstrap


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    """Says what topics take; the in-process broker does not tell, a real one does."""

    def known(sizes: Mapping[str, int], times: Mapping[str, TimestampLimits] | None = None) -> None:
        see_otherwise(monkeypatch, max_message_bytes=sizes, timestamp_limits=times or {})

    return known


def config(bootstrap: str, errors: str = "json", **extra: Any) -> dict[str, Any]:
    made = config_for(bootstrap, consumer={"delivery": "at_least_once"}, producer={"extra": {**QUICK, **extra}})
    made["kafka"]["producers"] = {"errors": {"format": errors}}
    return made


def text(value: str, timestamp_ms: int | None = None) -> KafkaRecord:
    return KafkaRecord("texts", b"k", b'{"text":"%s"}' % value.encode(), {}, 1, timestamp_ms=timestamp_ms)


def texts(records: list[ReadRecord]) -> list[str]:
    return [msgspec.json.decode(record.value or b"")["text"] for record in records]


def told(record: ReadRecord) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in record.headers}


def is_recent(record: ReadRecord) -> bool:
    return abs(record.timestamp_ms - time.time() * 1000) < 60_000


def test_a_dead_letter_has_the_time_of_its_writing_and_tells_that_of_its_record(bootstrap: str) -> None:
    ahead = int(time.time() * 1000) + 5 * HOUR_MS
    produce(bootstrap, "texts", text("bad", ahead), text("good", ahead))
    run_all(FLOW, config(bootstrap), 2)
    found = content(bootstrap, "out", "errors")
    assert [record.timestamp_ms for record in found["out"]] == [ahead]
    (letter,) = found["errors"]
    assert is_recent(letter)
    assert told(letter)["x-error-timestamp"] == str(ahead)


def test_a_whole_envelope_has_the_time_of_its_writing_too(bootstrap: str) -> None:
    produce(bootstrap, "texts", text("bad", 5_000))
    run_all(FLOW, config(bootstrap, "envelope"), 1)
    (letter,) = content(bootstrap, "errors")["errors"]
    assert is_recent(letter)
    assert msgspec.msgpack.decode(letter.value or b"")["source"]["timestamp_ms"] == 5_000


@pytest.mark.parametrize("ahead_ms", [2 * HOUR_MS, -50 * HOUR_MS], ids=["ahead", "behind"])
def test_a_timestamp_that_the_output_does_not_take_goes_to_the_dlq_and_order_holds(
    bootstrap: str, known: Known, ahead_ms: int
) -> None:
    limits = TimestampLimits(behind_ms=24 * HOUR_MS, ahead_ms=HOUR_MS)
    known({}, {"out": limits, "refused": limits})
    now = int(time.time() * 1000)
    produce(bootstrap, "texts", text("a", now), text("odd", now + ahead_ms), text("b", now))
    counts = run_all(FLOW, config(bootstrap), 3)
    found = content(bootstrap, "out", "refused")
    assert (texts(found["out"]), texts(found["refused"])) == (["a", "b"], ["odd"])
    (letter,) = found["refused"]
    assert is_recent(letter)
    assert told(letter)["x-error-timestamp"] == str(now + ahead_ms)
    assert "its timestamp" in told(letter)["x-error-reason"]
    assert counts.refused == {"out": 1}


def test_a_record_larger_than_the_usual_queue_is_written_where_its_topic_takes_it(bootstrap: str, known: Known) -> None:
    known({"out": 50_000_000})
    produce(bootstrap, "texts", text("a"))

    @step
    def grown(text: Text) -> Text:
        return Text("x" * 33_600_000)

    large = StreamFlow("writing", FromTopic("texts", Text), Process(grown), IntoTopic("out"))
    assert run_all(large, config(bootstrap), 1).outputs == {"out": 1}


def test_a_record_for_which_an_empty_queue_has_no_room_is_refused_and_the_others_go_on(bootstrap: str) -> None:
    produce(bootstrap, "texts", text("a"), text("x" * 50_000), text("b"))
    small = config(bootstrap)
    small["kafka"]["producers"]["out"] = {"extra": {"queue.buffering.max.kbytes": 20}}
    run_all(FLOW, small, 3)
    found = content(bootstrap, "out", "refused")
    assert texts(found["out"]) == ["a", "b"]
    (letter,) = found["refused"]
    assert "queue.buffering.max.kbytes" in told(letter)["x-error-reason"]


def test_with_message_max_bytes_set_by_hand_the_broker_decides_what_is_too_large(bootstrap: str, known: Known) -> None:
    known({"out": 2_000, "refused": 100_000})
    produce(bootstrap, "texts", text("x" * 10_000))
    counts = run_all(FLOW, config(bootstrap, **{"message.max.bytes": 100_000}), 1)
    assert len(content(bootstrap, "out")["out"]) == 1
    assert counts.refused == {}


@pytest.mark.parametrize("size", [900, 40])
def test_the_reason_of_a_dead_letter_is_cut_so_that_its_topic_takes_it(bootstrap: str, known: Known, size: int) -> None:
    known({"errors": size + 1_200})
    produce(bootstrap, "texts", text("bad" + "x" * size))
    run_all(FLOW, config(bootstrap), 1)
    (letter,) = content(bootstrap, "errors")["errors"]
    assert texts([letter]) == ["bad" + "x" * size]
    reason = told(letter)["x-error-reason"]
    assert reason.endswith("…")
    assert REASON.startswith(reason[:-1])
    assert len(reason) > 20


@pytest.mark.parametrize(("room", "keeps_message"), [(2_400, True), (1_200, False)])
def test_a_whole_envelope_gives_up_its_reason_first_and_then_its_decoded_message(
    bootstrap: str, known: Known, room: int, keeps_message: bool
) -> None:
    known({"errors": 1_000 + room})
    produce(bootstrap, "texts", text("bad" + "x" * 1_000))
    run_all(FLOW, config(bootstrap, "envelope"), 1)
    (letter,) = content(bootstrap, "errors")["errors"]
    envelope = msgspec.msgpack.decode(letter.value or b"")
    assert envelope["source"]["value"] == text("bad" + "x" * 1_000).value
    assert envelope["reason"].endswith("…")
    assert (envelope["original_message"] is not None) is keeps_message


def test_a_dead_letter_that_has_no_room_even_without_its_reason_ends_the_run_and_names_its_record(
    bootstrap: str, known: Known
) -> None:
    known({"errors": 1_000})
    produce(bootstrap, "texts", text("good"), text("bad" + "x" * 1_000))
    with pytest.raises(DeliveryFailedError, match=r"errors refuses the dead letter of texts\[1\]@1"):
        StreamingRunner.from_dict(FLOW, config(bootstrap)).run()
    assert positions(bootstrap, "texts")[1] == 0


def test_a_start_warns_of_error_topics_that_take_less_than_the_source(
    bootstrap: str, known: Known, capsys: pytest.CaptureFixture[str]
) -> None:
    known({"texts": 10_000, "errors": 10_000, "refused": 13_000})
    produce(bootstrap, "texts", text("a"))
    run_all(FLOW, config(bootstrap), 1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error_topic_limit_low" in line]
    assert "errors" in line
    assert "refused" not in line
    assert "12048" in line
