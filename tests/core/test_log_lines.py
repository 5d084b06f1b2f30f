"""A line that is written without structlog is the one that structlog would write."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from loom.core.log_lines import write_line
from loom.core.logger import configure_logging, get_logger

NAMES = st.text("abcdefgh_", min_size=1, max_size=6).filter(lambda name: name not in {"event", "level", "logger"})
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=6), st.binary(max_size=3)
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from(["a", "token"]), SCALARS, max_size=2)
)
FORMATS = st.sampled_from(["console", "json"])
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


@pytest.fixture(autouse=True, scope="module")
def unconfigured() -> Any:
    yield
    structlog.reset_defaults()
    configure_logging()


def without_time(text: str) -> str:
    assert TIME.search(text)
    return TIME.sub("NOW", text, count=1)


@given(
    st.text(max_size=40),
    st.dictionaries(NAMES, VALUES, max_size=4),
    FORMATS,
    st.sampled_from(["info", "warning", "critical"]),
)
def test_it_is_the_line_of_structlog(
    event: str, fields: dict[str, Any], format: Literal["console", "json"], level: str
) -> None:
    theirs, ours = io.StringIO(), io.StringIO()
    configure_logging(format=format, stream=theirs)
    getattr(get_logger("loom.orders"), level)(event, **fields)
    write_line(ours, format, level, event, {"logger": "loom.orders", **fields})
    assert without_time(ours.getvalue()) == without_time(theirs.getvalue())


@pytest.mark.parametrize("format", ["console", "json"])
def test_an_exception_is_shown_as_structlog_shows_it(format: Literal["console", "json"]) -> None:
    theirs, ours = io.StringIO(), io.StringIO()
    configure_logging(format=format, stream=theirs)
    try:
        raise ValueError("no price")
    except ValueError:
        get_logger("loom.orders").exception("failed", token="hunter2")
        write_line(ours, format, "error", "failed", {"logger": "loom.orders", "token": "hunter2"}, exception=True)
    assert without_time(ours.getvalue()) == without_time(theirs.getvalue())


@pytest.mark.parametrize("format", ["console", "json"])
def test_an_exception_that_is_given_is_shown_as_structlog_shows_it(format: Literal["console", "json"]) -> None:
    theirs, ours = io.StringIO(), io.StringIO()
    configure_logging(format=format, stream=theirs)
    try:
        raise ValueError("no price")
    except ValueError as error:
        given = {"logger": "loom.orders", "exc_info": (type(error), error, error.__traceback__)}
        get_logger("loom.orders").warning("failed", exc_info=given["exc_info"])
        write_line(ours, format, "warning", "failed", given)
    assert "Traceback" in ours.getvalue()
    assert without_time(ours.getvalue()) == without_time(theirs.getvalue())


@pytest.mark.parametrize("format", ["console", "json"])
def test_secrets_in_the_text_of_an_exception_are_masked(format: Literal["console", "json"]) -> None:
    theirs, ours = io.StringIO(), io.StringIO()
    configure_logging(format=format, stream=theirs)
    try:
        raise ValueError("postgres://ann:hunter2@db, password=hunter2, {'api_key': 'hunter2'}")
    except ValueError:
        get_logger("loom.orders").exception("failed")
        write_line(ours, format, "error", "failed", {"logger": "loom.orders"}, exception=True)
    for written in (theirs.getvalue(), ours.getvalue()):
        assert "ann" in written
        assert "hunter2" not in written


def told(code: str) -> list[str]:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == ""
    return run.stderr.splitlines()


PROGRAM = """
import sys
from loom.core.logger import configure_logging, get_logger
log = get_logger("orders", topic="t")
log.debug("unseen"); log.info("one")
configure_logging("warning"); log.info("unseen"); log.warning("two", token="hunter2")
assert "structlog" not in sys.modules and "rich" not in sys.modules
import structlog
log.info("unseen"); log.error("three"); structlog.get_logger().error("four")
"""


def test_structlog_is_not_loaded_for_a_line_and_follows_the_same_configuration_once_somebody_loads_it() -> None:
    lines = told(PROGRAM)
    events = [re.search(r"\] (\w+)", line) for line in lines]
    assert [event[1] for event in events if event is not None] == ["one", "two", "three", "four"]
    assert "token=***" in lines[1]
    assert all("topic=t" in line for line in lines[:3])


CONFIGURED = """
import structlog, sys
structlog.configure(
    logger_factory=structlog.PrintLoggerFactory(sys.stderr), processors=[structlog.processors.JSONRenderer()]
)
from loom.core.logger import get_logger
get_logger("orders").info("x")
"""


def test_an_application_that_configures_structlog_first_keeps_its_configuration() -> None:
    assert told(CONFIGURED) == ['{"logger": "orders", "event": "x"}']
