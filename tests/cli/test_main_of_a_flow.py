"""A flow's own `__main__`: what `loom run` says and ends with, by `python orders.py`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from loom.cli.exit_codes import Exit
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.cli.conftest import SECRET, Loom, Told
from tests.support.die_with_parent import die_with_parent
from tests.support.running import NOBODY, config_for, produce
from tests.support.waiting import LONG_S

PROGRAM = """
import flows
from loom.streaming.bytewax import main

if __name__ == "__main__":
    main(flows.{flow}, {config})
"""


def as_program(loom: Loom, flow: str = "numbers", config: str = '"loom.yaml"', **environment: str) -> Told:
    (loom.directory / "orders.py").write_text(PROGRAM.format(flow=flow, config=config))
    done = subprocess.run(
        die_with_parent([sys.executable, "orders.py"]),
        cwd=loom.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
        env={**loom.environment(), **environment},
    )
    assert SECRET not in done.stdout + done.stderr
    return Told(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def failing(loom: Loom, broker: EmbeddedBroker) -> Loom:
    """A config for a flow whose first record fails, on a broker."""
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", KafkaRecord("numbers", None, b'{"n":-1}'))
    loom.config(bootstrap=broker.bootstrap)
    return loom


@pytest.mark.parametrize(
    ("flow", "change", "code"),
    [
        ("numbers", lambda config: config["kafka"]["consumer"].update(group_id=""), Exit.CONFIG),
        ("mistyped", None, Exit.COMPILATION),
        ("positive", None, Exit.USAGE),
    ],
)
def test_a_refusal_is_the_message_and_exit_code_of_loom_run(loom: Loom, flow: str, change: Any, code: Exit) -> None:
    config = loom.config(change)
    told, like = as_program(loom, flow), loom("run", f"flows:{flow}", "-c", config)
    assert told.code == like.code == code
    assert len(told.messages) == 1
    assert "Traceback" not in told.err
    if code is not Exit.USAGE:
        assert told.messages[0].replace("loom.yaml", str(config)) == like.messages[0]


def test_a_failed_run_is_one_message(failing: Loom) -> None:
    told = as_program(failing)
    assert told.code == Exit.FAILED
    assert len(told.messages) == 1
    assert told.messages[0].startswith("task error at numbers.positive for numbers[")
    assert "orders.py" not in told.err


def test_tracebacks_are_shown_where_the_environment_asks_for_them(loom: Loom) -> None:
    loom.config(lambda config: config["kafka"]["consumer"].update(group_id=""))
    told = as_program(loom, LOOM_DEBUG="1")
    assert told.code == Exit.CONFIG
    assert "Traceback" in told.err
    assert len(told.messages) == 1
    assert "Traceback" not in as_program(loom, LOOM_DEBUG="0").err


def test_a_config_may_be_a_mapping(loom: Loom) -> None:
    told = as_program(loom, config=repr(config_for(NOBODY, consumer={"group_idd": "typed"})))
    assert told.code == Exit.CONFIG
    assert "kafka.consumer.group_idd" in told.messages[0]


def test_a_flow_is_started_again_as_the_config_says(failing: Loom, broker: EmbeddedBroker) -> None:
    failing.config(lambda config: config["streaming"].update(supervision={"restarts": 1}), bootstrap=broker.bootstrap)
    told = as_program(failing)
    assert told.code == Exit.FAILED
    assert "the flow ended 2 times without advancing" in told.messages[-1]
