"""Records that a broker will never take: each goes to the dead letters of its output alone, and its neighbours arrive."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.kafka import DeliveryFailedError, EmbeddedBroker, KafkaRecord
from tests.support.kafka_io import ReadRecord
from tests.support.running import QUICK, config_for, content, positions, produce, run_all
from tests.support.snapshots import see_otherwise


class Text(LoomFrozenStruct):
    text: str


@step
def blown_up(text: Text) -> Text:
    return Text(text.text * 1_000) if text.text.startswith("big") else text


def flow(dlq: str | None = "too-large") -> StreamFlow[Any, Any]:
    return StreamFlow("writing", FromTopic("texts", Text), Process(blown_up), IntoTopic("out", dlq=dlq))


TEXTS = ["a", "big-1", "b", "c", "big-2", "d"]


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("texts", "out", "too-large"):
        broker.create_topic(topic)
    produce(
        broker.bootstrap,
        "texts",
        *(KafkaRecord("texts", b"k", b'{"text":"%s"}' % text.encode(), {"a": b"1"}, 1) for text in TEXTS),
    )
    return broker.bootstrap


@pytest.fixture
def known_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The in-process broker tells no limits; a real one does."""

    see_otherwise(monkeypatch, max_message_bytes={"out": 2_000, "too-large": 100_000})


def values(records: list[ReadRecord]) -> list[str]:
    return [(record.value or b"").decode().removeprefix('{"text":"').removesuffix('"}') for record in records]


def config(bootstrap: str, **extra: Any) -> dict[str, Any]:
    producer = {"extra": {**QUICK, **extra}}
    return config_for(bootstrap, consumer={"delivery": "at_least_once"}, producer=producer)


def assert_dead_letters(letters: list[ReadRecord]) -> None:
    """The original source bytes, and the refusal in the headers."""
    assert values(letters) == ["big-1", "big-2"]
    for letter, offset in zip(letters, (b"1", b"4"), strict=True):
        told = dict(letter.headers)
        assert (letter.key, told["a"]) == (b"k", b"1")
        assert (told["x-error-topic"], told["x-error-partition"], told["x-error-offset"]) == (b"texts", b"1", offset)
        assert told["x-error-reason"]
        assert told["x-error-step"] == b"writing.output"
        assert (told["x-error-flow"], told["x-error-count"]) == (b"writing", b"1")


def test_a_record_over_a_known_limit_goes_to_the_dead_letters_and_order_holds(
    bootstrap: str, known_limits: None
) -> None:
    counts = run_all(flow(), config(bootstrap), len(TEXTS))
    found = content(bootstrap, "out", "too-large")
    assert values(found["out"]) == ["a", "b", "c", "d"]
    assert_dead_letters(found["too-large"])
    assert "2000" in (dict(found["too-large"][0].headers)["x-error-reason"] or b"").decode()
    assert (counts.refused, counts.outputs) == ({"out": 2}, {"out": 4})
    assert positions(bootstrap, "texts")[1] == len(TEXTS)


def test_the_first_record_that_is_refused_is_logged_and_the_others_are_counted(
    bootstrap: str, known_limits: None
) -> None:
    with capture_logs() as lines:
        run_all(flow(), config(bootstrap), len(TEXTS))
    (first,) = [line for line in lines if line["event"] == "record_failed"]
    assert (first["step"], first["topic"], first["offset"]) == ("writing.output", "texts", 1)
    assert "2000" in first["reason"]
    (again,) = [line for line in lines if line["event"] == "record_failed_again"]
    assert (again["repeats"], again["total"]) == (1, 2)


@pytest.mark.parametrize("part", ["key", "headers"])
def test_key_and_headers_count_for_the_limit(broker: EmbeddedBroker, known_limits: None, part: str) -> None:
    for topic in ("texts", "out", "too-large"):
        broker.create_topic(topic)
    large = b"x" * 1_900
    record = KafkaRecord(
        "texts", large if part == "key" else b"k", b'{"text":"a"}', {"a": large} if part != "key" else {}
    )
    produce(broker.bootstrap, "texts", record, KafkaRecord("texts", b"k", b'{"text":"b"}'))
    run_all(flow(), config(broker.bootstrap), 2)
    found = content(broker.bootstrap, "out", "too-large")
    assert (values(found["out"]), values(found["too-large"])) == (["b"], ["a"])


def test_a_record_that_the_client_refuses_goes_to_the_dead_letters(bootstrap: str) -> None:
    counts = run_all(flow(), config(bootstrap, **{"message.max.bytes": 2_000}), len(TEXTS))
    found = content(bootstrap, "out", "too-large")
    assert values(found["out"]) == ["a", "b", "c", "d"]
    assert_dead_letters(found["too-large"])
    assert (counts.refused, counts.outputs) == ({"out": 2}, {"out": 4})


@pytest.mark.parametrize("known", [True, False], ids=["known-limit", "client"])
def test_without_dead_letters_the_run_fails_naming_the_record_and_confirms_nothing(
    bootstrap: str, known: bool, request: pytest.FixtureRequest
) -> None:
    if known:
        request.getfixturevalue("known_limits")
    extra = {} if known else {"message.max.bytes": 2_000}
    with pytest.raises(DeliveryFailedError, match=r"out.*texts\[1\]@1.*dlq"):
        StreamingRunner.from_dict(flow(dlq=None), config(bootstrap, **extra)).run()
    assert positions(bootstrap, "texts")[1] == 0


def test_a_dead_letter_that_is_too_large_itself_ends_the_run(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    see_otherwise(monkeypatch, max_message_bytes={"out": 2_000, "too-large": 95})
    with pytest.raises(DeliveryFailedError, match="too-large"):
        StreamingRunner.from_dict(flow(), config(bootstrap)).run()
    assert positions(bootstrap, "texts")[1] == 0


def test_a_dead_letter_of_an_error_route_that_is_too_large_ends_the_run_too(
    broker: EmbeddedBroker, bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that can be put nowhere is never given up."""
    broker.create_topic("errors")
    produce(bootstrap, "texts", b"x" * 5_000)

    see_otherwise(monkeypatch, max_message_bytes={"errors": 1_000})
    routed = StreamFlow("writing", FromTopic("texts", Text), Process(blown_up), IntoTopic("out"), IntoTopic("errors"))
    with pytest.raises(DeliveryFailedError, match="errors"):
        StreamingRunner.from_dict(routed, config(bootstrap)).run()


def test_a_refused_error_record_goes_to_the_dead_letters_of_the_error_topic(
    broker: EmbeddedBroker, bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.create_topic("errors")
    produce(bootstrap, "texts", b"x" * 5_000)

    see_otherwise(monkeypatch, max_message_bytes={"errors": 1_000})
    errors = IntoTopic("errors", dlq="too-large")
    routed = StreamFlow("writing", FromTopic("texts", Text), Process(blown_up), IntoTopic("out"), errors)
    counts = run_all(routed, config(bootstrap), len(TEXTS) + 1)
    (letter,) = content(bootstrap, "too-large")["too-large"]
    assert letter.value == b"x" * 5_000
    assert counts.failed == {ErrorKind.WIRE: 1}
    assert len(content(bootstrap, "errors")["errors"]) == 0


def test_a_tombstone_that_is_refused_goes_to_the_dead_letters_too(broker: EmbeddedBroker, known_limits: None) -> None:
    for topic in ("texts", "out", "too-large"):
        broker.create_topic(topic)
    long_key = b"k" * 3_000
    produce(broker.bootstrap, "texts", KafkaRecord("texts", long_key, None), KafkaRecord("texts", b"k", None))
    run_all(flow(), config(broker.bootstrap), 2)
    found = content(broker.bootstrap, "out", "too-large")
    assert [record.key for record in found["out"]] == [b"k"]
    assert [(record.key, record.value) for record in found["too-large"]] == [(long_key, None)]
