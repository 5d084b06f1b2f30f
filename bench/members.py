"""Members of a consumer group come and go under load: for how long does a partition stand still?

Three things happen to each contender: a third member joins two; one of three is killed and started again at once; three are
stopped and started, one after the other. What counts is seen from outside, by a reader of committed results: the longest time
in which no new result of some partition comes.
"""

from __future__ import annotations

import itertools
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from bench.contenders import MEMBERS, Contender, resolve
from bench.kafka import running_broker
from bench.measure import started
from bench.orders import Order, encode, make_orders
from bench.result import Figure, Run, Suite
from tests.support.apache_kafka import ApacheKafka
from tests.support.arrivals import Arrivals, Sign
from tests.support.kafka_io import delete_topic
from tests.support.load import Load

PARTITIONS = 6
COUNT = 3
#: milliseconds, for every contender: Loom's own default, and a third of the client's
SESSION_MS = 10_000
#: seconds within which members come to rest; of load before an act, and between two questions
REST_WITHIN, BEFORE, AGAIN = 180.0, 3.0, 0.1


class MembersJob(msgspec.Struct, frozen=True):
    """One member: copy orders from `source` to `target`, priced, until it is told to stop."""

    contender: str
    bootstrap: str
    source: str
    target: str
    group: str
    #: its name as a static member
    instance: str | None


Job = MembersJob


class MembersSample(msgspec.Struct, frozen=True):
    """One run of one contender, in seconds."""

    #: the longest time that a partition stood still while a member joined, while one was killed, and while all were restarted
    join_s: float
    killed_s: float
    rolled_s: float
    #: from the start of a killed member to the first result of the last partition that stood still
    again_s: float


@contextmanager
def opened(records: int) -> Iterator[Run]:
    """A broker for all runs."""
    with running_broker() as broker:

        def run(name: str, contender: Contender, root: Path) -> MembersSample:
            return run_one(broker, name, contender, records, root)

        yield run


def run_one(broker: ApacheKafka, name: str, contender: Contender, rate: int, root: Path) -> MembersSample:
    """A contender with topics and a group of its own: join, kill, restart."""
    run = uuid.uuid4().hex[:8]
    source, target = (broker.create_topic(f"{name}.{run}.{end}", PARTITIONS) for end in ("in", "out"))
    job = MembersJob(name, broker.bootstrap, source, target, f"bench-{name}-{run}", None)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loom-bench-")))
        arrivals = stack.enter_context(Arrivals(broker.bootstrap, [target], _sign_of, PARTITIONS))
        load = Load(broker.bootstrap, source, rate=rate, partitions=PARTITIONS, value=_values())
        group = _Group(job, contender, folder, root, arrivals, load, stack)
        load.start()
        try:
            sample = _acts(group, arrivals)
        finally:
            load.finish()
    for topic in (source, target):
        delete_topic(broker.bootstrap, topic)
    return sample


def _acts(group: _Group, arrivals: Arrivals) -> MembersSample:
    for number in range(COUNT - 1):
        group.start(number)
    group.rest(COUNT - 1)

    time.sleep(BEFORE)
    began = time.monotonic()
    group.start(COUNT - 1)
    group.rest(COUNT)
    join_s = arrivals.longest_pause(since=began)

    time.sleep(BEFORE)
    began = time.monotonic()
    group.kill(COUNT - 1)
    group.start(COUNT - 1)
    again = time.monotonic()
    group.rest(COUNT)
    killed_s = arrivals.longest_pause(since=began)
    firsts = [arrivals.after(lane, again) for lane in arrivals.lanes]
    again_s = max(first for first in firsts if first is not None) - again

    time.sleep(BEFORE)
    began = time.monotonic()
    for number in range(COUNT):
        group.stop(number)
        group.start(number)
        group.rest(COUNT)
    return MembersSample(join_s, killed_s, arrivals.longest_pause(since=began), again_s)


class _Group:
    """The members of one contender."""

    def __init__(
        self,
        job: MembersJob,
        contender: Contender,
        folder: Path,
        root: Path,
        arrivals: Arrivals,
        load: Load,
        stack: ExitStack,
    ) -> None:
        self._job, self._contender, self._root = job, contender, root
        self._folder, self._arrivals, self._load, self._stack = folder, arrivals, load, stack
        self._named = job.contender.endswith("_named")
        self._members = {number: self._member(number) for number in range(COUNT)}
        self._admin = AdminClient({"bootstrap.servers": job.bootstrap, "log_level": 0})

    def start(self, number: int) -> None:
        """Start a member, for the first time or again."""
        self._members[number].start()

    def kill(self, number: int) -> None:
        """SIGKILL."""
        self._members[number].kill()

    def stop(self, number: int) -> None:
        """SIGTERM, and wait for its end."""
        self._members[number].stop()

    def rest(self, count: int) -> None:
        """Wait until so many members share the partitions, and then have read what was written by then."""
        deadline = time.monotonic() + REST_WITHIN
        while True:
            while not self._is_balanced(count):
                self._wait(deadline)
            wanted = self._load.written - PARTITIONS
            while not self._has_read(wanted):
                self._wait(deadline)
            if self._is_balanced(count):
                return

    def _wait(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{self._job.contender}: the members did not come to rest in {REST_WITHIN:.0f} s")
        time.sleep(AGAIN)

    def _has_read(self, wanted: int) -> bool:
        newest = self._arrivals.newest()
        return len(newest) == PARTITIONS and min(newest.values()) >= wanted

    def _is_balanced(self, count: int) -> bool:
        described = self._admin.describe_consumer_groups([self._job.group])[self._job.group].result(10)
        shares = [len(member.assignment.topic_partitions) for member in described.members]
        return described.state is ConsumerGroupState.STABLE and shares == [PARTITIONS // count] * count

    def _member(self, number: int) -> _Member:
        job = msgspec.structs.replace(self._job, instance=f"member-{number}" if self._named else None)
        return _Member(self._contender, job, self._folder / str(number), self._root, self._stack)


class _Member:
    """One process of a contender, over all its starts."""

    def __init__(self, contender: Contender, job: MembersJob, folder: Path, root: Path, stack: ExitStack) -> None:
        folder.mkdir()
        self._start = lambda: stack.enter_context(started("members", contender, job, folder, root))

    def start(self) -> None:
        self._process = self._start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        if code := self._process.wait(60):
            raise RuntimeError(f"a member that was asked to stop ended with {code}")


def run_job(job: MembersJob) -> None:
    """Called in a member's own process."""
    resolve(MEMBERS[job.contender].run)(job)


def _values() -> Callable[[int], bytes]:
    """Orders whose `placed_at` is their number; number n goes to partition n modulo their count."""
    orders = [msgspec.json.decode(order.value, type=Order) for order in itertools.islice(make_orders(1_000), 1_000)]
    return lambda n: encode(msgspec.structs.replace(orders[n % len(orders)], placed_at=str(n)))


class _Out(msgspec.Struct):
    placed_at: str


_read = msgspec.json.Decoder(_Out).decode


def _sign_of(value: bytes) -> Sign:
    number = int(_read(value).placed_at)
    return Sign(number % PARTITIONS, number)


def _summary(sample: MembersSample) -> str:
    return (
        f"join {sample.join_s:5.2f} s  killed {sample.killed_s:5.2f} s (read again {sample.again_s:5.2f} s after its start)  "
        f"restarts {sample.rolled_s:5.2f} s"
    )


SUITE = Suite(
    name="members",
    title="Members of a group, records a second",
    contenders=MEMBERS,
    sample=MembersSample,
    figures=(
        Figure("join", "join s", lambda sample: sample.join_s, spread=True),
        Figure("killed", "killed s", lambda sample: sample.killed_s, spread=True),
        Figure("again", "read again s", lambda sample: sample.again_s, spread=True),
        Figure("rolled", "restarts s", lambda sample: sample.rolled_s, spread=True),
    ),
    ratios=(("join", "quix"), ("rolled", "quix")),
    records=1_000,
    rounds=3,
    opened=opened,
    summary=_summary,
)
