"""Every line of a run says whose it is, on whatever thread it is written."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from loom.core.log_context import current_log_context, log_context, run_log_context
from loom.core.logger import configure_logging, get_logger


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    written = io.StringIO()
    configure_logging(format="json", stream=written)
    yield written
    configure_logging()
    structlog.reset_defaults()


def elsewhere(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_of_a_run_name_it_also_on_threads_that_it_did_not_start(stream: io.StringIO) -> None:
    log = get_logger("orders", step="price")
    with run_log_context(flow="orders", instance="a-1"):
        log.info("here")
        elsewhere(lambda: log.info("there"))
    log.info("after")
    here, there, after = lines(stream)
    for line in (here, there):
        assert (line["flow"], line["instance"], line["step"]) == ("orders", "a-1", "price")
    assert "flow" not in after


def test_where_two_runs_share_a_process_a_line_never_names_the_wrong_one() -> None:
    seen: list[Any] = []
    with run_log_context(flow="orders"), run_log_context(flow="prices"):
        assert current_log_context()["flow"] == "prices"
        elsewhere(lambda: seen.append(current_log_context()))
    assert seen == [{}]


def test_what_a_line_says_itself_wins(stream: io.StringIO) -> None:
    with run_log_context(flow="orders"):
        get_logger("a").info("x", flow="mine")
    assert lines(stream)[0]["flow"] == "mine"


def test_the_trace_of_a_record_is_said_only_while_it_is_at_work(stream: io.StringIO) -> None:
    log = get_logger("orders")
    with run_log_context(flow="orders"):
        with log_context(trace_id="1"):
            log.info("inside")
        log.info("outside")
    inside, outside = lines(stream)
    assert (inside["trace_id"], inside["flow"]) == ("1", "orders")
    assert "trace_id" not in outside


def _logged(**environment: str) -> str:
    code = "from loom.core.logger import get_logger; get_logger('a').info('seen', n=1)"
    inherited = {name: value for name, value in os.environ.items() if name != "LOOM_LOG_FORMAT"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**inherited, **environment}
    )
    return run.stderr


def test_outside_a_terminal_each_line_is_a_json_object_unless_the_environment_says_otherwise() -> None:
    assert json.loads(_logged())["event"] == "seen"
    told = _logged(LOOM_LOG_FORMAT="console")
    assert "seen" in told
    with pytest.raises(json.JSONDecodeError):
        json.loads(told)


def test_on_a_terminal_lines_are_for_people() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    os.environ.pop("LOOM_LOG_FORMAT")
    try:
        terminal = Terminal()
        configure_logging(stream=terminal)
        get_logger("a").info("seen")
    finally:
        os.environ["LOOM_LOG_FORMAT"] = "console"
        configure_logging()
        structlog.reset_defaults()
    assert "seen" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
