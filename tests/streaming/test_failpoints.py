"""The points at which a test may interfere: named, passed in order, and inert unless a hook is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, failpoints
from loom.streaming.failpoints import Failpoint
from loom.streaming.kafka import EmbeddedBroker
from tests.kafka.numbers_flow import Number, refuse_some
from tests.support.running import config_for, produce, run_all


@pytest.fixture
def passed() -> Iterator[list[Failpoint]]:
    """The points that this process comes to."""
    found: list[Failpoint] = []
    before = failpoints.install(found.append)
    yield found
    failpoints.install(before)


def test_a_point_is_nothing_unless_a_hook_is_installed(passed: list[Failpoint]) -> None:
    failpoints.failpoint(Failpoint.STARTING)
    assert failpoints.install(None) is not None
    failpoints.failpoint(Failpoint.STARTING)
    assert passed == [Failpoint.STARTING]


def test_what_a_hook_raises_reaches_the_caller() -> None:
    def fail(point: Failpoint) -> None:
        raise RuntimeError(point)

    before = failpoints.install(fail)
    try:
        with pytest.raises(RuntimeError, match="polled"):
            failpoints.failpoint(Failpoint.POLLED)
    finally:
        failpoints.install(before)


def test_a_run_comes_to_its_points_in_order(broker: EmbeddedBroker, passed: list[Failpoint]) -> None:
    for topic in ("in", "out", "errors"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "in", b'{"n":1}', b'{"n":2}')
    flow = StreamFlow(
        "points", FromTopic("in", payload=Number), Process(refuse_some, IntoTopic("out")), errors=IntoTopic("errors")
    )
    run_all(flow, config_for(broker.bootstrap, consumer={"delivery": "at_least_once"}), 2)
    assert list(dict.fromkeys(passed)) == [
        Failpoint.STARTING,
        Failpoint.POSITIONED,
        Failpoint.POLLED,
        Failpoint.BEFORE_PRODUCE,
        Failpoint.PRODUCED,
        Failpoint.MARKED,
        Failpoint.BEFORE_FLUSH,
        Failpoint.DURABLE,
        Failpoint.CONFIRMING,
        Failpoint.STOPPING,
        Failpoint.FINISHING,
        Failpoint.CLOSING,
    ]


def run_python(code: str, directory: Path, hook: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, failpoints.VARIABLE: hook, "PYTHONPATH": str(directory)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_the_environment_names_a_hook_for_another_process(tmp_path: Path) -> None:
    (tmp_path / "my_hook.py").write_text("def told(point):\n    print('at', point)\n")
    code = "from loom.streaming.failpoints import Failpoint, failpoint; failpoint(Failpoint.FLUSHED)"
    assert run_python(code, tmp_path, "my_hook:told").stdout.splitlines()[-1] == "at flushed"
    assert "at flushed" not in run_python(code, tmp_path, "").stdout


@pytest.mark.parametrize("name", ["no_such_module:hook", "json:no_such_function", "json", ":hook"])
def test_a_hook_that_cannot_be_found_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    ended = run_python("import loom.streaming.failpoints", tmp_path, name)
    assert ended.returncode != 0
    assert f"LOOM_FAULT_POINTS={name!r} names no callable" in ended.stderr
