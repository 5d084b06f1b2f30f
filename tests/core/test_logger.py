"""Log lines go to stderr, carry their context, follow the configuration, and never show a secret."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from loom.core.logger import configure_logging, get_logger, redact_secrets

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    configure_logging()
    structlog.reset_defaults()
    yield
    configure_logging()
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_without_any_configuration_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log = get_logger("orders")
    log.debug("unseen")
    log.info("seen", topic="orders.raw")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "seen" in captured.err
    assert "orders.raw" in captured.err
    assert "unseen" not in captured.err


def test_stderr_is_the_one_of_the_moment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging()
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    get_logger("orders").info("seen")
    assert "seen" in later.getvalue()


def test_every_line_carries_name_level_time_and_context() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    get_logger("orders", topic="t").bind(partition=3).warning("slow", took=1)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "slow", "level": "warning", "logger": "orders", "topic": "t", "partition": 3, "took": 1}


def test_bind_leaves_the_first_logger_alone() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    log = get_logger("orders")
    log.bind(topic="t")
    log.info("x")
    assert "topic" not in lines(stream)[0]


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("WARNING", ["warning", "error", "critical"]),
        ("critical", ["critical"]),
    ],
)
def test_lines_below_the_level_are_dropped(level: str, shown: list[str]) -> None:
    stream = io.StringIO()
    configure_logging(level, "json", stream)
    log = get_logger("orders")
    for write in (log.debug, log.info, log.warning, log.error, log.critical):
        write("x")
    assert [line["level"] for line in lines(stream)] == shown


def test_a_logger_follows_a_later_configuration() -> None:
    log = get_logger("orders")
    first, second = io.StringIO(), io.StringIO()
    configure_logging(stream=first)
    log.info("one")
    configure_logging("debug", "json", second)
    log.debug("two")
    assert "one" in first.getvalue()
    assert "two" not in first.getvalue()
    assert [line["event"] for line in lines(second)] == ["two"]


@pytest.mark.parametrize("format", ["console", "json"])
def test_secrets_are_masked_wherever_they_stand(format: Any) -> None:
    stream = io.StringIO()
    configure_logging(format=format, stream=stream)
    get_logger("orders", token="hunter2").info(
        "connecting", config={"sasl_password": "hunter2", "user": "ann"}, url="amqp://ann:hunter2@host"
    )
    assert "hunter2" not in stream.getvalue()
    assert "ann" in stream.getvalue()


@pytest.mark.parametrize("format", ["console", "json"])
def test_a_traceback_is_written_without_local_variables(format: Any) -> None:
    stream = io.StringIO()
    configure_logging(format=format, stream=stream)
    try:
        held = "hunter2".swapcase()
        raise RuntimeError("broken pipe")
    except RuntimeError:
        get_logger("orders").exception("failed")
    assert "broken pipe" in stream.getvalue()
    assert "Traceback" in stream.getvalue()
    assert held not in stream.getvalue()


def test_a_value_that_json_does_not_know_is_written_all_the_same() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    get_logger("orders").info("x", value=object())
    assert "object object" in lines(stream)[0]["value"]


def test_an_application_that_configured_structlog_keeps_its_configuration() -> None:
    with structlog.testing.capture_logs() as captured:
        structlog.configure()
        get_logger("orders").info("x")
    assert captured == [{"event": "x", "logger": "orders", "log_level": "info"}]


def test_the_processor_can_be_used_on_its_own() -> None:
    assert redact_secrets(None, "info", {"event": "x", "password": "p"}) == {"event": "x", "password": "***"}


@pytest.mark.parametrize(("level", "format"), [("loud", "json"), ("info", "xml")])
def test_an_unknown_level_or_format_is_refused(level: str, format: Any) -> None:
    with pytest.raises(ValueError, match="is none of"):
        configure_logging(level, format)


def test_nothing_is_written_to_stdout_by_a_fresh_process() -> None:
    code = (
        "from loom.core.logger import get_logger; get_logger('a', logger_factory=1, processors=2).error('x', name='n')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == ""
    assert "x" in run.stderr
