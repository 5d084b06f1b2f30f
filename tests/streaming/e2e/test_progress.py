"""What an operator reads of a run: how it gets on, its totals, and why it is over."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from loom.core.config import ConfigError
from loom.core.logger import configure_logging
from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime
from loom.streaming import (
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    StreamingRunner,
    step,
)
from loom.streaming.bytewax import UnroutedRecordError
from loom.streaming.kafka import EmbeddedBroker
from tests.support.running import all_done, config_for, produce, run_until


class Number(LoomFrozenStruct):
    n: int


@step
def positive(number: Number) -> Number | None:
    if number.n < 0:
        raise ValueError("negative")
    return number if number.n else None


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    """Two records that are written, one that is dropped, two that fail."""
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", *(b'{"n":%d}' % n for n in (1, -1, 0, 2)), b"x")
    return broker.bootstrap


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def runner(bootstrap: str, interval_ms: int | None, *, errors: Any = IntoTopic("errors")) -> StreamingRunner:  # noqa: B008
    flow = StreamFlow("telling", FromTopic("numbers", Number), Process(positive), IntoTopic("out"), errors)
    log = {} if interval_ms is None else {"observability": {"log": {"progress_interval_ms": interval_ms}}}
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"}, **log)
    # An observer of our own, so that the section does not set up another log in the middle of the test.
    return StreamingRunner.from_dict(flow, config, observability_runtime=ObservabilityRuntime.noop())


def named(lines: list[Any], event: str) -> list[Any]:
    return [line for line in lines if line["event"] == event]


def test_every_line_of_a_run_names_flow_and_instance_and_those_of_a_step_the_step(
    bootstrap: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Saying(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            self.log.info("said", n=message.payload.n)
            return message.payload

    monkeypatch.setattr("socket.gethostname", lambda: "blue")
    flow = StreamFlow("telling", FromTopic("numbers", Number), Process(Saying), IntoTopic("out"), IntoTopic("errors"))
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"})
    try:
        configure_logging(format="json")
        run_until(StreamingRunner.from_dict(flow, config), all_done(5))
        written = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    finally:
        configure_logging()
    events = {line["event"] for line in written}
    assert {"flow_started", "record_failed", "flow_totals", "flow_stopped", "said"} <= events
    assert {(line.get("flow"), line.get("instance")) for line in written} == {("telling", f"blue-{os.getpid()}")}
    assert {line["step"] for line in written if line["event"] == "said"} == {"saying"}


def test_progress_is_told_each_interval_with_errors_by_kind_and_the_lag(bootstrap: str, lines: list[Any]) -> None:
    def whole() -> list[Any]:
        return [line for line in named(lines, "flow_progress") if line["read"] == 5 and "lag" in line]

    run_until(runner(bootstrap, 40), lambda counts: len(whole()) > 1)
    told = whole()[0]
    assert (told["flow"], told["written"], told["dropped"], told["lag"]) == ("telling", 2, 1, 0)
    assert told["errors"] == {"task": 1, "wire": 1}


def test_the_end_of_a_run_tells_its_totals_and_why_it_is_over(bootstrap: str, lines: list[Any]) -> None:
    run_until(runner(bootstrap, None), all_done(5))
    (totals,) = named(lines, "flow_totals")
    assert (totals["read"], totals["written"], totals["dropped"], totals["errors"], totals["lag"]) == (
        5,
        2,
        1,
        {"task": 1, "wire": 1},
        0,
    )
    (stopped,) = named(lines, "flow_stopped")
    assert (stopped["reason"], stopped["log_level"]) == ("shutdown() was called", "info")


def test_a_failed_run_is_told_as_one(bootstrap: str, lines: list[Any]) -> None:
    with pytest.raises(UnroutedRecordError):
        run_until(runner(bootstrap, None, errors=None), all_done(5))
    (stopped,) = named(lines, "flow_stopped")
    assert (stopped["reason"], stopped["log_level"]) == ("the run failed", "error")
    assert "UnroutedRecordError" in stopped["error"]
    assert len(named(lines, "flow_totals")) == 1


def test_an_interval_of_zero_leaves_only_the_end(bootstrap: str, lines: list[Any]) -> None:
    begun = time.monotonic()
    run_until(runner(bootstrap, 0), lambda counts: all_done(5)(counts) and time.monotonic() - begun > 0.5)
    assert not named(lines, "flow_progress")
    assert named(lines, "flow_totals")


def test_an_interval_below_zero_is_refused(bootstrap: str) -> None:
    with pytest.raises(ConfigError, match="progress_interval_ms"):
        runner(bootstrap, -1).run()
