"""What a failed run says of the records that it had confirmed beforehand and did not write."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.bytewax import UnroutedRecordError
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.running import all_done, config_for, content, positions, produce, run_until

pytestmark = pytest.mark.both_engines


class Number(LoomFrozenStruct):
    n: int


@step
def below_hundred(number: Number) -> Number:
    if number.n >= 100:
        raise ValueError("too much")
    return number


FLOW = StreamFlow("losing", FromTopic("numbers", Number), Process(below_hundred), IntoTopic("out"))


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    return broker.bootstrap


def write(bootstrap: str, *values: int) -> None:
    produce(bootstrap, "numbers", *(KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % 4) for n in values))


def failed(bootstrap: str, **consumer: Any) -> int:
    """Run until the record that fails; how many records the run counts as lost."""
    runner = StreamingRunner.from_dict(FLOW, config_for(bootstrap, consumer=consumer))
    with pytest.raises(UnroutedRecordError):
        runner.run()
    assert runner.metrics is not None
    return runner.metrics.read().lost


@pytest.mark.parametrize("consumer", [{"delivery": "at_most_once"}, {}], ids=["at-most-once", "auto-commit"])
def test_a_failed_run_counts_and_says_what_it_has_lost(
    bootstrap: str, capsys: pytest.CaptureFixture[str], consumer: dict[str, Any]
) -> None:
    write(bootstrap, 0, 4, 100, 8, 12)
    lost = failed(bootstrap, **consumer)
    assert lost == 5 - len(content(bootstrap, "out")["out"])
    told = capsys.readouterr().err
    assert "records_lost" in told
    assert f"at_most={lost}" in told
    assert "numbers[0]" in told
    assert f"{5 - lost} to 4" in told
    assert positions(bootstrap, "numbers")[0] == 5


def test_what_was_durable_before_the_failure_is_not_lost(bootstrap: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(bootstrap, 0, 4)
    runner = StreamingRunner.from_dict(FLOW, config_for(bootstrap, consumer={"delivery": "at_most_once"}))
    sent = []

    def done(counts: Any) -> bool:
        if not sent and all_done(2)(counts):
            sent.append(100)
            write(bootstrap, 100)
        return False

    with pytest.raises(UnroutedRecordError):
        run_until(runner, done)
    assert runner.metrics is not None
    assert runner.metrics.read().lost == 1
    assert "2 to 2" in capsys.readouterr().err


@pytest.mark.parametrize("delivery", ["at_least_once"])
def test_what_is_read_again_is_not_lost(bootstrap: str, capsys: pytest.CaptureFixture[str], delivery: str) -> None:
    write(bootstrap, 0, 4, 100)
    assert failed(bootstrap, delivery=delivery) == 0
    assert "records_lost" not in capsys.readouterr().err


@pytest.mark.parametrize("consumer", [{"delivery": "at_most_once"}, {}], ids=["at-most-once", "auto-commit"])
def test_an_orderly_end_loses_nothing_and_says_nothing(
    bootstrap: str, capsys: pytest.CaptureFixture[str], consumer: dict[str, Any]
) -> None:
    write(bootstrap, *range(8))
    runner = StreamingRunner.from_dict(FLOW, config_for(bootstrap, consumer=consumer))
    # Stopped while the last epoch is not durable yet.
    counts = run_until(runner, lambda counts: counts.read >= 8)
    assert counts.lost == 0
    assert "records_lost" not in capsys.readouterr().err
    assert len(content(bootstrap, "out")["out"]) == 8
