"""Flows that die in every way, run by `loom run` under a supervisor, on a broker that the test holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from loom.cli.supervisor import restart_policy
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord, cluster_snapshot
from tests.support.flow_process import FlowProcess
from tests.support.fork_server import ForkServer, fork_runs
from tests.support.running import QUICK, content, produce
from tests.support.waiting import LONG_S

FLOWS = '''
"""A flow whose numbers name how it ends."""

import os
import signal
import time

from loom.core.model import LoomFrozenStruct
from loom.streaming import BatchStep, CollectBatch, ForEach, FromTopic, IntoTopic, Process, StreamFlow, step

HOW = {
    "abort": os.abort,
    "exit": lambda: os._exit(1),
    "quit": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


class Number(LoomFrozenStruct):
    n: int
    end: str = ""


@step
def perhaps(number: Number) -> Number:
    if number.end == "once":
        try:
            open(f"once-{number.n}", "x").close()
        except FileExistsError:
            return number
        os.abort()
    if number.end == "raise":
        raise ValueError("a bad number")
    if number.end == "hang":
        print("hanging", flush=True)
        while True:
            time.sleep(0.05)
    if number.end:
        HOW[number.end]()
    return number


class All(BatchStep[Number, Number]):
    def execute(self, messages):
        return [perhaps(message.payload) for message in messages]


def flow_of(name, *nodes, errors=IntoTopic("bad")):
    return StreamFlow(name, FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"), errors=errors)


flow = flow_of("perhaps", perhaps, errors=None)
routed = flow_of("routed", perhaps)
collecting = flow_of("collecting", CollectBatch(100, timeout_ms=50), All, ForEach())
'''


def quick_restarts() -> None:
    """Before a supervisor that is forked begins: its pauses are short, and it forks its runs as well."""
    restart_policy._FIRST_PAUSE = 0.01
    fork_runs()


def long_pauses() -> None:
    """Before a supervisor that is forked begins: its first pause is one of an hour."""
    restart_policy._FIRST_PAUSE = restart_policy._LONGEST_PAUSE = 3_600.0
    fork_runs()


def impatient() -> None:
    """Before a supervisor that is forked begins: its runs give a broker that is away up after two seconds, not ten."""
    cluster_snapshot._REACH = 2.0
    fork_runs()


def patient() -> None:
    """Before a supervisor that is forked begins: its runs wait for a broker that is away for an hour, not for ten seconds."""
    cluster_snapshot._REACH = 3_600.0
    fork_runs()


class Supervised(FlowProcess):
    """`loom run` with restarts, in a folder of its own; one partition is written to.

    With a `server` it begins with `setup`; without one it is a new interpreter, and starts new ones, as its users have it.
    """

    def __init__(
        self,
        bootstrap: str,
        directory: Path,
        *,
        restarts: int = 2,
        runtime: Mapping[str, Any] | None = None,
        supervision: Mapping[str, Any] | None = None,
        consumer: Mapping[str, Any] | None = None,
        topics: Mapping[str, str] | None = None,
        observability: Mapping[str, Any] | None = None,
        flow: str = "flow",
        server: ForkServer | None = None,
        setup: Callable[[], None] | None = None,
    ) -> None:
        (directory / "ends.py").write_text(FLOWS)
        config = {
            "kafka": {
                "consumer": {
                    "brokers": [bootstrap],
                    "group_id": "readers",
                    "delivery": "at_least_once",
                    "batch_size": 1,
                    **(consumer or {}),
                },
                "producer": {"brokers": [bootstrap], "extra": QUICK},
                "producers": {name: {"topic": topic} for name, topic in (topics or {}).items()},
            },
            "streaming": {
                "runtime": {"epoch_interval_ms": 20, **(runtime or {})},
                "supervision": {"restarts": restarts, **(supervision or {})},
            },
            "observability": dict(observability or {}),
        }
        file = directory / "loom.yaml"
        file.write_text(yaml.safe_dump(config))
        begin = setup or quick_restarts
        super().__init__(
            f"ends:{flow}",
            config=file,
            directory=directory,
            server=server,
            setup=f"{begin.__module__}:{begin.__name__}",
        )

    @property
    def child(self) -> int:
        """The process id of the run at hand; waits until there is one."""
        found = self._await(lambda: self.children() or None, "there is no child", 30)
        return found[0]

    def await_confirmed(self, bootstrap: str, position: int, timeout: float = LONG_S) -> None:
        """Wait until the group stands there."""
        self.await_positions(bootstrap, "readers", "numbers", {0: position}, timeout)

    def restarts_left(self) -> list[int]:
        """What the supervisor has said was left, at each restart."""
        return [int(left) for left in re.findall(r"restarts_left=(-?\d+)", self.output())]


def write(broker: EmbeddedBroker, *ends: str, start: int = 0) -> None:
    """Numbers in partition 0, each with the end that it brings about."""
    produce(
        broker.bootstrap,
        "numbers",
        *(
            KafkaRecord("numbers", None, b'{"n":%d,"end":"%s"}' % (n, end.encode()), partition=0)
            for n, end in enumerate(ends, start)
        ),
    )


def written(broker: EmbeddedBroker, topic: str = "out") -> list[int]:
    """The numbers that came out."""
    found = [re.search(rb'"n":(\d+)', record.value or b"") for record in content(broker.bootstrap, topic)[topic]]
    return [int(number[1]) for number in found if number is not None]
