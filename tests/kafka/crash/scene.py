"""What happens in one cell: topics of its own, a load, the flow as processes, and bounds on every wait."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loom.streaming.failpoints import Failpoint
from tests.kafka.crash import books
from tests.kafka.crash.books import BOOKS
from tests.kafka.crash.broker_acts import SPLITTING
from tests.kafka.crash.faults import Act, Cell, Delivery
from tests.kafka.crash.stands import Stand
from tests.kafka.crash.trace import Trace
from tests.kafka.crash.verify import Verdict
from tests.support.arrivals import Arrivals
from tests.support.broker import Broker, FreshTopics
from tests.support.flow_process import FlowProcess
from tests.support.kafka_cluster import KafkaCluster
from tests.support.kafka_io import delete_topic, end_offsets, group_positions
from tests.support.load import Load
from tests.support.numbers_run import PARTITIONS, NumbersRun
from tests.support.processes import gone_within

#: records per second, and the engine's epoch
RATE = 4_000
#: the same where three brokers each keep a copy
CLUSTER_RATE = 1_000
EPOCH_MS = 200
#: Seconds within which each of these must have happened. They bound what may hang, and allow for a busy machine.
UP_WITHIN = 120.0
END_WITHIN = 90.0
ALL_WITHIN = 180.0
#: how often an operator would start the flow again before he looks what is wrong
RESTARTS = 25
_PAUSE = 0.3
#: milliseconds; the shortest session that a broker allows
_SESSION = 6_000
#: seconds that a step may wait for a revocation that it outlasts
_DAWDLE = 100.0


class Overdue(Exception):
    """Something did not happen within its bound."""


class Scene:
    """One flow under load. `strikes` act on it; ended by `with`. Of a `hot` load all records stand in one partition."""

    def __init__(
        self,
        cell: Cell,
        stand: Stand,
        directory: Path,
        seed: int,
        *,
        rate: float | None = None,
        epoch_ms: int = EPOCH_MS,
        program: Sequence[str] | None = None,
        hot: bool = False,
    ) -> None:
        self.cell = cell
        self.stand = stand
        self.random = random.Random(seed)
        self.trace = Trace(directory / "trace")
        self.exit_codes: list[int] = []
        fault = cell.fault
        timeout = fault.transaction_timeout_ms
        self._run = NumbersRun(
            stand.broker,
            directory,
            target=f"{fault.flow}:flow",
            outputs=BOOKS[fault.flow].outputs,
            group=_split_group(stand.broker) if fault.act in SPLITTING else None,
            runtime={"workers_per_process": cell.workers, "epoch_interval_ms": epoch_ms},
            process={
                "environment": {
                    "LOOM_FAULT_POINTS": "crash_hook:hook",
                    "LOOM_CRASH_TRACE": str(self.trace.path),
                },
                **({"program": program} if program is not None else {}),
            },
            producer={
                "brokers": [stand.out_bootstrap or stand.flow_bootstrap],
                "extra": {
                    **fault.producer_extra,
                    **({"transaction.timeout.ms": timeout} if timeout is not None else {}),
                },
            },
            brokers=[stand.flow_bootstrap],
            **_consumer(cell.delivery),
            **({"membership": "group"} if fault.members or fault.grouped else {}),
            session_timeout_ms=_SESSION,
        )
        bootstrap = stand.broker.bootstrap
        rate = rate or (CLUSTER_RATE if isinstance(stand.broker, KafkaCluster) else RATE)
        self.load = Load(bootstrap, self._run.source, rate=rate, partitions=1 if hot else PARTITIONS)
        #: the instance that is to go on in the end
        self.flow = self._run.flow
        if stand.hosts:
            self.flow = self.flow.on(stand.hosts[0].command)
        self._instances = [self.flow]
        #: sees what comes out while it is watched
        self.arrivals = Arrivals(bootstrap, self._run.outputs.values(), books.sign_of, PARTITIONS)
        self._load_ended: float | None = None
        self._directory = directory
        self._starts = 0
        self._started_at = 0.0
        #: the members of a group
        self.members: list[FlowProcess] = []
        #: from when, and of which process, the first results are waited for
        self.since = 0.0
        self.resuming: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for flow in self._instances:
            flow.kill_all()

    def start(self, strike: str = "") -> None:
        """Start the flow (again); `strike` is for `crash_hook`."""
        self.since, self.resuming = time.monotonic(), None
        self._started_at = self.since
        layouts = self.cell.fault.layouts
        if self.cell.fault.members:
            self._start_members(strike)
            return
        if not layouts:
            self.flow.start(LOOM_CRASH_STRIKE=strike)
            return
        count = layouts[min(self._starts, len(layouts) - 1)]
        self._starts += 1
        self.flow = self._run.flow.variant("--processes", str(count))
        self._instances.append(self.flow)
        once = str(self._directory / f"struck-{self._starts}")
        # The supervisor adds the number of each process.
        named = {"LOOM_GROUP_INSTANCE_ID": "member"} if self.cell.fault.named else {}
        self.flow.start(LOOM_CRASH_STRIKE=strike, LOOM_CRASH_ONCE=once, **named)

    def _start_members(self, strike: str) -> None:
        """All of them; the last one is the victim, and the first one is to go on."""
        count = self.cell.fault.members
        self.members = [self._run.flow.twin(f"member-{number}.log") for number in range(count)]
        if self.stand.hosts:
            self.members = [
                member.on(host.command) for member, host in zip(self.members, self.stand.hosts, strict=True)
            ]
        self._instances += self.members
        self.flow = self.members[0]
        for number in range(count):
            self.start_member(number, strike if number == count - 1 else "")
        # Struck as it is given partitions, the victim never comes to where it knows its positions.
        never = self.members[-1] if strike and self.cell.fault.at == Failpoint.ASSIGNED else None
        for member in self.members:
            if member is not never:
                self.until("positioned", member)

    def start_member(self, number: int, strike: str = "") -> FlowProcess:
        """Start one of them, or one more."""
        if number == len(self.members):
            self.members.append(self._run.flow.twin(f"member-{number}.log"))
            self._instances.append(self.members[-1])
        given = {"LOOM_GROUP_INSTANCE_ID": f"member-{number}"} if self.cell.fault.named else {}
        if strike and self.cell.fault.act is Act.STRIKE_AT_BOUND:
            given["LOOM_CRASH_DAWDLE"] = str(_DAWDLE)
        if strike and self.cell.fault.rejoins:
            given["LOOM_CRASH_REJOIN"] = "1"
        return self.members[number].start(LOOM_CRASH_STRIKE=strike, **given)

    def children(self, within: float = END_WITHIN) -> list[int]:
        """The processes of the supervisor; it may be about to start one again that was alone."""
        deadline = time.monotonic() + within
        while not (found := self.flow.children()):
            if time.monotonic() > deadline:
                raise Overdue(f"no process was started within {within:.0f} s:\n{self.flow.tail(30)}")
            time.sleep(_PAUSE)
        return found

    def start_in(self, mode: str, **environment: str) -> FlowProcess:
        """Start one more instance, with this mode of membership; it is the one to go on."""
        self.flow = self._run.flow.twin(f"instance-{len(self._instances)}.log")
        self._instances.append(self.flow)
        self.since = self._started_at = time.monotonic()
        return self.flow.start(LOOM_CRASH_STRIKE="", LOOM__KAFKA__CONSUMER__MEMBERSHIP=mode, **environment)

    def longest_stall(self) -> float:
        """The longest time in which no new result of some partition came out, between its first and its last, in seconds."""
        return round(self.arrivals.longest_pause(until=self._load_ended or float("inf")), 2)

    def finish_load(self) -> int:
        """Stop writing; from now on a partition is quiet because it is read up. Returns how many numbers there are."""
        written = self.load.finish()
        self._load_ended = self._load_ended or time.monotonic()
        return written

    def members_ended(self) -> int:
        """How many processes have ended by themselves, which none may."""
        if not self.members:
            return len(self.exit_codes) if self.cell.fault.watched else 0
        ended = [member for member in self.members if not member.alive]
        self.exit_codes += [member.wait(1) for member in ended]
        return len(ended)

    def start_successor(self) -> FlowProcess:
        """A second instance with the same config, which is the one to go on."""
        self.flow = self.flow.twin(f"instance-{len(self._instances)}.log")
        self._instances.append(self.flow)
        self.start()
        self.resuming = self.flow.pid
        return self.flow

    def some_time(self, least: float, most: float) -> None:
        """Let a random time pass."""
        time.sleep(self.random.uniform(least, most))

    def until(self, what: str, flow: FlowProcess | None = None) -> None:
        """Wait until an instance comes to a point."""
        flow = flow or self.flow
        # Of several processes any one will do: the one that we know is their supervisor.
        which = {"since": self._started_at} if self.cell.fault.layouts else {"process": flow.pid}
        if not self.trace.wait(what, within=UP_WITHIN, alive=lambda: flow.alive, **which):
            state = "is still not" if flow.alive else f"ended with {flow.wait(1)} before it was"
            raise Overdue(f"the flow {state} {what} after {UP_WITHIN:.0f} s:\n{flow.tail(15)}")

    def until_more(self, what: str, before: int) -> None:
        """Wait until a point was reached more often than so many times."""
        deadline = time.monotonic() + UP_WITHIN
        while self.trace.count(what) <= before:
            if time.monotonic() > deadline:
                raise Overdue(f"the flow was not {what} again within {UP_WITHIN:.0f} s:\n{self.flow.tail(15)}")
            time.sleep(0.02)

    def end_of(self, flow: FlowProcess, within: float = END_WITHIN) -> int:
        """Wait until an instance has ended, and note how."""
        try:
            code = flow.wait(within)
        except TimeoutError:
            raise Overdue(f"the flow did not end within {within:.0f} s:\n{_where(flow)}") from None
        self.exit_codes.append(code)
        return code

    def gone(self, process: int, within: float = END_WITHIN) -> None:
        """Wait until a process that is no child of ours has ended."""
        if not gone_within(within, process):
            raise Overdue(f"process {process} did not end within {within:.0f} s:\n{self.flow.tail(30)}")

    def mended(self) -> None:
        """The fault is over; from now on the flow is expected to resume."""
        self.since = time.monotonic()

    def one_goes_on(self, older: FlowProcess, newer: FlowProcess) -> None:
        """Of two instances under load one must notice, where the delivery promises anything; else the older is stopped."""
        bound = END_WITHIN if self.cell.delivery in {Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE} else 2.0
        deadline = time.monotonic() + bound
        while older.alive and newer.alive:
            if time.monotonic() > deadline:
                if bound == END_WITHIN:
                    raise Overdue(f"two instances went on side by side for {END_WITHIN:.0f} s")
                older.send(signal.SIGTERM)
                deadline += END_WITHIN
                bound = END_WITHIN
            time.sleep(0.05)
        if older.alive:
            self.end_of(newer)
            self.flow = older
        else:
            self.end_of(older)
            self.flow = newer

    def see_through(self) -> None:
        """Wait until everything is confirmed, starting the flow again whenever it ends, as an operator would."""
        deadline = time.monotonic() + ALL_WITHIN
        bootstrap = self.stand.broker.bootstrap
        ends = end_offsets(bootstrap, self._run.source)
        restarts = 0
        while True:
            if not self.flow.alive:
                self.end_of(self.flow)
                restarts += 1
                if restarts > RESTARTS:
                    raise Overdue(f"started {RESTARTS} times, the flow ends each time:\n{self.flow.tail(15)}")
                time.sleep(_PAUSE)
                self.flow.start(LOOM_CRASH_STRIKE="")
            positions = group_positions(bootstrap, self._run.group, self._run.source)
            if all(positions.get(part, 0) >= end for part, end in ends.items()):
                return
            if time.monotonic() > deadline:
                raise Overdue(f"not confirmed after {ALL_WITHIN:.0f} s: {positions} of {ends}\n{_where(self.flow)}")
            time.sleep(0.1)

    def stop(self) -> None:
        """An orderly end of the instance that is left."""
        for flow in self._instances:
            if flow is not self.flow and flow.alive:
                flow.kill_all()
        self.until("positioned")
        self.flow.sigterm()
        if (code := self.end_of(self.flow)) != 0:
            raise Overdue(f"the last stop ended with {code}:\n{self.flow.tail(15)}")

    @property
    def source(self) -> str:
        """The topic of the numbers."""
        return self._run.source

    @property
    def group(self) -> str:
        """The group of the flow."""
        return self._run.group

    @property
    def transactional_id(self) -> str:
        """The id of the flow's only process, where it has one."""
        return _transactional_id(self._run.group)

    def seconds_until(self, what: str) -> float | None:
        """From the restart, or the end of the fault, to the first time at a point."""
        found = self.trace.first(what, since=self.since, process=self.resuming)
        return None if found is None else round(found - self.since, 2)

    def results(self) -> int:
        """How many records stand in the outputs, transaction markers included."""
        bootstrap = self.stand.broker.bootstrap
        return sum(sum(end_offsets(bootstrap, topic).values()) for topic in self._run.outputs.values())

    def verdict(self, count: int, twice: Mapping[int, int]) -> Verdict:
        """What a reader of committed records sees; what stands in the source repeatedly is to do so in the outputs."""
        return books.verdict(self.cell.fault.flow, count, self._run.written(), twice)

    def twice(self, count: int) -> dict[int, int]:
        """The numbers that stand in the source more than once, and how often, where it is to hold so many records.

        The client of the load is idempotent, and yet one of librdkafka may write a record again when the leader of its
        partition moves (its issue 4953).
        """
        if sum(self._run.ends().values()) == count:
            return {}
        times = Counter(json.loads(record.value or b"")["n"] for record in self._run.arrived())
        return {number: often for number, often in times.items() if often > 1}

    def forget(self) -> None:
        """Delete the topics: a broker of hundreds of cells would drown in partitions."""
        for topic in (self._run.source, *self._run.outputs.values()):
            delete_topic(self.stand.broker.bootstrap, topic)


def _split_group(broker: Broker) -> str:
    """The name of a group whose offsets another broker keeps than the one that ends its transactions."""
    assert isinstance(broker, KafkaCluster)
    while True:
        group = FreshTopics(broker).name("numbers")
        if broker.group_coordinator(group) != broker.transaction_coordinator(_transactional_id(group)):
            return group


def _transactional_id(group: str) -> str:
    return f"{group}@numbers@0"


def _where(flow: FlowProcess) -> str:
    """What a flow that hangs is doing: the stacks of its threads, below the end of its log."""
    flow.send(signal.SIGUSR1)
    time.sleep(0.5)
    return flow.tail(60)


def _consumer(delivery: Delivery) -> dict[str, Any]:
    if delivery is Delivery.AUTO_COMMIT:
        # A shorter turn than the client's five seconds, so that it commits a few times in a cell.
        return {"delivery": None, "extra": {"auto.commit.interval.ms": 500}}
    return {"delivery": delivery.value}
