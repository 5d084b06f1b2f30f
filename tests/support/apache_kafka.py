"""A real Apache Kafka on this machine, one KRaft node, for tests and benchmarks; several are a `KafkaCluster`.

    with ApacheKafka(tmp_path / "kafka") as kafka:
        kafka.create_topic("orders", partitions=4)
        ...  # clients connect to kafka.bootstrap

Guarantees are proved against this broker and not against an imitation: only it fences producers, ends transactions and
keeps what it has acknowledged when it is killed.
"""

from __future__ import annotations

import base64
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.die_with_parent import die_with_parent
from tests.support.kafka_io import await_groups, await_topics_listed, await_transactions, create_topic
from tests.support.kafka_jars import fetch_jars, why_unavailable
from tests.support.waiting import LONG_S

__all__ = ["ApacheKafka", "Behind", "Node", "cluster_id", "free_port", "why_unavailable"]

#: Seconds until a broker must answer, from its process's start. Measured: 3; a busy machine takes several times that.
READY_WITHIN = 300.0
#: Seconds for an orderly stop before SIGKILL. Measured: 1 to 2.
STOP_WITHIN = 120.0

JVM_OPTIONS = ("-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")
#: For a broker that lives for some minutes: no code of it runs for long enough to earn what optimising it costs. A start takes
#: 4.9 s of CPU instead of 7.1, the first 16,000 records 0.4 s instead of 0.9.
BRIEF = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
#: for one that is to be as fast as it can
STEADY = ("-XX:+UseG1GC",)

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # One node holds the only copy of everything, and few partitions make internal topics quick to create and to load.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # A test that misspells a topic must hear of it.
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # Less than a flow would count on by itself, so that it must have asked.
    "offsets.retention.minutes": "120",
    # A transaction that has run out of time is ended a second later, not ten.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # After a kill the node is let in again only when its former session has run out: 6 s instead of 9. With 3 s a busy machine
    # takes the running node for dead, and nothing leads its partitions for a while.
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
}

LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
"""


class Behind(NamedTuple):
    """A second port of the broker, and that of the proxy in front of it; `host` is the address of both."""

    port: int
    proxy: int
    host: str = "127.0.0.1"


class Node(NamedTuple):
    """One of several brokers. `voters` names the controllers of all, each of which is a broker too.

    With `among` the other brokers reach it by a port of its own, behind a proxy.
    """

    number: int
    broker: int
    controller: int
    voters: str
    cluster: str
    among: Behind | None = None


class ApacheKafka:
    """One broker with its data below `directory`; started and stopped as often as a test likes, always on one port.

    `properties` are added to the broker's own, or replace them. The first start empties the data directory. With `behind`
    the broker also listens on a second port, where it names a proxy as its address: clients that come through the proxy
    stay behind it. As the `node` of a cluster it is started by `launch`, since none is ready before most of them run.
    `megabytes` limits its heap; a `steady` one is as fast as it can be, for benchmarks, and slower to start.

    Start it from the main thread: the broker is killed when the thread that started it is gone (see `die_with_parent`).
    """

    def __init__(
        self,
        directory: Path,
        properties: Mapping[str, str] | None = None,
        *,
        behind: Behind | None = None,
        node: Node | None = None,
        megabytes: int = 512,
        steady: bool = False,
    ) -> None:
        self._directory = directory.absolute()
        self._properties = dict(properties or {})
        self._behind = behind
        self._node = node
        self._compiler = STEADY if steady else BRIEF
        # 512 MB are plenty for a few hundred megabytes of topics: records live in the page cache, not in the heap.
        self._heap = ("-Xms128m", f"-Xmx{megabytes}m")
        self._ports: tuple[int, int] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients; known once the broker has been started."""
        if self._ports is None:
            raise RuntimeError("the broker has not been started yet")
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the broker's process exists; a paused one does."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the broker and return when it serves topics and groups; `RuntimeError` shows its last log lines.

        The first start returns when it begins transactions too. A second start uses the same port and data.
        """
        if self.alive:
            raise RuntimeError("the broker is running already")
        if (reason := why_unavailable()) is not None:
            raise RuntimeError(reason)
        if self._ports is not None:
            self._serve(first=False)
            return
        for left in (2, 1, 0):
            self._ports = (free_port(), free_port())
            self._format()
            try:
                self._serve(first=True)
            except RuntimeError:
                if not left or "Address already in use" not in self.log_tail(200):
                    raise
            else:
                return

    def launch(self) -> None:
        """Start one node of a cluster and return at once; the first time, with its data directory empty."""
        assert self._node is not None
        if self._ports is None:
            self._ports = (self._node.broker, self._node.controller)
            self._format()
        self._process = self._launch("kafka.Kafka", str(self._directory / "server.properties"))

    def stop(self) -> None:
        """Ask the broker to stop (SIGTERM), and kill it when it has not after `STOP_WITHIN` seconds."""
        self._end(signal.SIGTERM, within=STOP_WITHIN)

    def kill(self) -> None:
        """Kill the broker (SIGKILL). What it had acknowledged is kept: it is in the page cache, or further."""
        self._end(signal.SIGKILL, within=LONG_S)

    def restart(self) -> None:
        """Stop the broker if it runs and start it again, on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): connections stay open and nothing answers, as with a machine that hangs."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker go on (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic, wait until all its partitions have a leader, and return its name."""
        return create_topic(self.bootstrap, name, partitions, config)

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the broker's log, over all its starts."""
        log = self._directory / "broker.log"
        if not log.exists():
            return ""
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("the broker is not running")
        return self._process

    def _format(self) -> None:
        """Write the configuration and an empty log for the ports that have been chosen."""
        assert self._ports is not None
        broker, controller = self._ports
        data = self._directory / "data"
        shutil.rmtree(data, ignore_errors=True)
        self._directory.mkdir(parents=True, exist_ok=True)
        listeners = advertised = f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}"
        if self._behind is not None:
            listeners += f",PROXIED://{self._behind.host}:{self._behind.port}"
            advertised += f",PROXIED://{self._behind.host}:{self._behind.proxy}"
        properties = PROPERTIES | {
            "listeners": listeners,
            "advertised.listeners": advertised,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "log.dirs": str(data),
        }
        format_as = ("--standalone", "-t", cluster_id())
        if self._node is not None:
            del properties["controller.quorum.bootstrap.servers"]
            properties |= {"node.id": str(self._node.number), "controller.quorum.voters": self._node.voters}
            format_as = ("-t", self._node.cluster)
            if (among := self._node.among) is not None:
                properties["listeners"] += f",AMONG://{among.host}:{among.port}"
                properties["advertised.listeners"] += f",AMONG://{among.host}:{among.proxy}"
                properties["listener.security.protocol.map"] += ",AMONG:PLAINTEXT"
                properties["inter.broker.listener.name"] = "AMONG"
        properties |= self._properties
        text = "".join(f"{key}={value}\n" for key, value in properties.items())
        (self._directory / "server.properties").write_text(text, encoding="utf-8")
        (self._directory / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
        format_log = self._launch(
            "kafka.tools.StorageTool",
            *("format", *format_as, "-c", str(self._directory / "server.properties")),
        )
        if format_log.wait(READY_WITHIN) != 0:
            raise RuntimeError(f"the broker's log directory could not be formatted:\n{self.log_tail()}")

    def _serve(self, *, first: bool) -> None:
        self._process = self._launch("kafka.Kafka", str(self._directory / "server.properties"))
        try:
            self._await_ready(first=first)
        except BaseException:
            self.kill()
            raise

    def _launch(self, main: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [
            "java",
            *self._heap,
            *JVM_OPTIONS,
            *self._compiler,
            f"-Dlog4j2.configurationFile={self._directory / 'log4j2.properties'}",
        ]
        command += ["-cp", f"{fetch_jars()}/*", main, *arguments]
        with (self._directory / "broker.log").open("ab") as log:
            return subprocess.Popen(
                die_with_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                start_new_session=True,
            )

    def _await_ready(self, *, first: bool) -> None:
        """Return when a client can list topics and find the coordinators it needs."""
        deadline = time.monotonic() + READY_WITHIN
        try:
            self._await_listening(deadline)
            await_topics_listed(self.bootstrap, deadline, while_=lambda: self.alive)
            await_groups(self.bootstrap, deadline, while_=lambda: self.alive)
            if first:  # makes the internal topic; a restart finds it there, and would wait two seconds longer for it
                await_transactions(self.bootstrap, deadline, while_=lambda: self.alive)
        except TimeoutError as error:
            state = "is not ready" if self.alive else "has ended"
            raise RuntimeError(f"the broker {state}: {error}\n{self.log_tail()}") from error

    def _await_listening(self, deadline: float) -> None:
        """Return when the port takes connections; a client that comes earlier would only back off and be late."""
        host, port = self.bootstrap.split(":")
        while time.monotonic() < deadline and self.alive:
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError(f"nothing listens on {self.bootstrap}")

    def _end(self, how: signal.Signals, within: float) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)  # a paused process would take notice of SIGTERM when it is woken only
            try:
                process.wait(within)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(LONG_S)
        self._process = None


def free_port() -> int:
    """A port of the loopback interface that nothing uses, below those that the kernel hands to clients.

    A client that keeps trying a port of the ephemeral range while its broker is down can be given that very port as its
    own, connect to itself, and keep the broker from coming back.
    """
    below = _first_ephemeral_port()
    for _ in range(200):
        port = random.randrange(max(1024, below - 12_000), below)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("found no free port on 127.0.0.1")


def _first_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except OSError:  # not Linux
        return 32_768
    return first if first > 4_096 else 32_768


def cluster_id() -> str:
    """An identifier for a new cluster."""
    while True:
        identifier = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not identifier.startswith("-"):  # the storage tool would take it for an option
            return identifier
