"""What tests of every folder may ask for: a broker inside this process, empty and of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog  # noqa: F401 - tests capture its lines; where it is loaded, ours are its lines
from hypothesis import HealthCheck, settings

from loom.core.logger import configure_logging
from loom.core.observability import otel_observer
from loom.core.observability.outbox import Outbox
from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.runtime import engine as engines
from tests.support import event_loops
from tests.support.engines import ENGINES, NO_BYTEWAX, VARIABLE, bytewax_installed, take_engine
from tests.support.waiting import LONG_S

# The engine prints where in its own source it failed, a page for each failed run; nobody reads it here.
os.environ["RUST_BACKTRACE"] = "0"

# Tests read what a process logs as a person would, though it is no terminal.
os.environ["LOOM_LOG_FORMAT"] = "console"

# How long one generated example takes, or its generation, says more of the machine than of the code.
settings.register_profile("loom", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loom")

# Whoever captures log lines before the first one is written leaves structlog configured by half, with lines on stdout.
configure_logging()


pytest_plugins = ["loom.streaming.testing.fixtures"]

_IMPORTS_BYTEWAX = re.compile(
    r"^(from|import) bytewax\b|^from loom\.streaming\.bytewax\.(?!build|error_sink)\w+ import", re.MULTILINE
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=ENGINES, help="run every flow of the tests on this engine")
    parser.addoption(
        "--event-loop", choices=event_loops.EVENT_LOOPS, help="run the async calls of the tests in this loop"
    )


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("--engine")
    if chosen is not None:
        os.environ[VARIABLE] = chosen
    take_engine()
    if (loop := config.getoption("--event-loop")) is not None:
        os.environ[event_loops.VARIABLE] = loop
    event_loops.take_event_loop()


class _NeedsBytewax(pytest.Module):
    """A module of tests that imports an engine which is not there."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(NO_BYTEWAX, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if not bytewax_installed() and _IMPORTS_BYTEWAX.search(module_path.read_text()):
        return _NeedsBytewax.from_parent(parent, path=module_path)
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not bytewax_installed():
        for item in items:
            if item.get_closest_marker("bytewax") is not None:
                item.add_marker(pytest.mark.skip(reason=NO_BYTEWAX))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = {mark.name for mark in metafunc.definition.iter_markers()}
    if "both_engines" in asked and "bytewax" not in asked:
        chosen = metafunc.config.getoption("--engine")
        there = ENGINES if bytewax_installed() else ("loop",)
        metafunc.parametrize("engine", [chosen] if chosen is not None else there, indirect=True)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine that the flows of this test run on."""
    name: engines.EngineName | None = getattr(request, "param", None)
    if request.node.get_closest_marker("bytewax") is not None:
        name = "bytewax"
    if name is not None:
        monkeypatch.setattr(engines, "default_engine", lambda: name)
        monkeypatch.setenv(VARIABLE, name)
    return engines.default_engine()


@pytest.fixture(autouse=True)
def event_loop_of_its_own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is marked `own_event_loop` runs on the loop that it names, whatever `--event-loop` does."""
    is_marked = request.node.get_closest_marker("own_event_loop") is not None
    with monkeypatch.context() as patch:
        if is_marked:
            patch.setenv(event_loops.VARIABLE, "asyncio")
            event_loops.take_event_loop()
        yield
    if is_marked:
        event_loops.take_event_loop()


@pytest.fixture
def hasty_observers() -> None:
    """Observers are waited for as in production, for a fifth of a second, and not until they have seen everything."""


@pytest.fixture(autouse=True)
def _observers_are_waited_for(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads what an observer was told finds all of it, also where its thread is slow to come up."""
    settle = Outbox.settle
    if "hasty_observers" not in request.fixturenames:
        monkeypatch.setattr(otel_observer, "_LEAVE", LONG_S)
        monkeypatch.setattr(Outbox, "settle", lambda outbox, timeout_s=0.0: settle(outbox, max(timeout_s, LONG_S)))


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """The client's own test broker; `broker.bootstrap` is its address. Every topic has four partitions."""
    with EmbeddedBroker() as running:
        yield running
