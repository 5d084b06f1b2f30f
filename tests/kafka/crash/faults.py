"""The table of faults, and the matrix it spans with guarantees and workers. Data only: `strikes` acts, `cell` runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from loom.streaming.failpoints import Failpoint
from tests.kafka.crash.books import FlowKind
from tests.kafka.crash.broker_acts import SPLITTING, BrokerAct, NetworkAct
from tests.kafka.crash.crash_hook import IN_STEP

#: raised when what a cell does has changed so that earlier results no longer count
VERSION = 1

RANDOM_REPETITIONS = 10
NAMED_REPETITIONS = 3


class Delivery(StrEnum):
    """The guarantees, in the order of the table's columns."""

    AT_LEAST_ONCE = "at_least_once"
    EXACTLY_ONCE = "exactly_once"
    AT_MOST_ONCE = "at_most_once"
    AUTO_COMMIT = "auto_commit"


class Act(StrEnum):
    """What is done to a run; each has its function in `strikes`."""

    SIGNAL = "signal"  #: the flow is sent a signal, ends by it, and is started again
    SIGNAL_WHILE_STOPPING = "signal while stopping"  #: the same, after a SIGTERM
    FREEZE = "freeze"  #: SIGSTOP, past the transaction's time-out, then SIGCONT
    FREEZE_AND_SUCCEED = "freeze and succeed"  #: the same, with a successor that runs meanwhile
    SECOND_INSTANCE = "second instance"  #: another one is started with the same id
    STRIKE_ONE = "strike one"  #: of several processes one is sent a signal, and restarted alone
    END_ALL = (
        "end all"  #: several processes and their supervisor are sent a signal, and another number of them is started
    )
    KILL_SUPERVISOR = "kill supervisor"  #: the same, and the processes stop by themselves
    CHANGE_MODE = "change mode"  #: one is sent a signal, and one of the other mode of membership takes over, and back
    ROLL_MODE = (
        "roll mode"  #: of two that run one is stopped, and one of the other mode is started beside the one that is left
    )
    FREEZE_ONE = "freeze one"  #: one stands still, the others are killed, another number goes on, and it wakes
    STRIKE_MEMBER = "strike member"  #: of the members of a group one is sent a signal, and started again
    STRIKE_WHILE_REVOKING = "strike while revoking"  #: the same, as it is told to give partitions up to another one
    STRIKE_AT_BOUND = "strike at bound"  #: the same, where its step holds up the partitions that another one is to have
    FREEZE_MEMBER = "freeze member"  #: one stands still and wakes
    JOIN_AND_LEAVE = "join and leave"  #: one joins, and after a while it is stopped in order
    KILL_BROKER = "kill broker"
    PAUSE_BROKER = "pause broker"
    FILL_DISK = "fill disk"
    CUT = "cut"  #: connections are reset, and new ones refused
    SILENCE = "silence"  #: connections stay open, and nothing passes
    DEAFEN = "deafen"  #: what the flow asks arrives, and no answer comes back


AnyAct: TypeAlias = Act | BrokerAct | NetworkAct


@dataclass(frozen=True)
class Fault:
    """One row of the table. Without `at` it strikes at a random time."""

    name: str
    act: AnyAct
    at: str | None = None
    signal: signal.Signals = signal.SIGKILL
    deliveries: tuple[Delivery, ...] = tuple(Delivery)
    repetitions: int = NAMED_REPETITIONS
    #: how often it strikes in one repetition
    strikes: int = 1
    #: the hits of the point from which one is drawn to strike at
    hits: tuple[int, int] = (1, 1)
    #: repeated with two workers, under the guarantees that promise something
    two_workers: bool = False
    #: two instances run at a time, so that at-most-once may repeat
    overlap: bool = False
    #: how many processes each start of the flow has; empty: one, without `--processes`
    layouts: tuple[int, ...] = ()
    #: how many members of a group there are; 0: the assignment is fixed
    members: int = 0
    #: no process ends, and the longest time in which nothing comes out is a result
    watched: bool = False
    #: the one that is frozen goes on with its old epoch only when it has been given partitions again
    rejoins: bool = False
    #: each of them has a name
    named: bool = False
    #: the processes of `layouts` are members of a group
    grouped: bool = False
    #: which flow is run
    flow: FlowKind = FlowKind.PLAIN
    #: seconds that a broker, a connection or a process is away
    away: float = 3.0
    #: `transaction.timeout.ms`; `None` leaves it at the client's minute
    transaction_timeout_ms: int | None = None
    #: further properties of the flow's producer
    producer_extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        """How long a partition stands still is a result: processes share them, or brokers go while all processes stay."""
        return bool(self.members or self.layouts or self.watched) or self.act in MODES_CHANGE

    @property
    def graceful(self) -> bool:
        """The flow is asked to stop, once, when it can: the next run repeats nothing."""
        return self.act in {Act.SIGNAL, Act.END_ALL} and self.signal is signal.SIGTERM

    @property
    def exit_codes(self) -> frozenset[int]:
        """How a process may end while no other one runs: never as failed (1), nor as replaced (8)."""
        if self.act in MODES_CHANGE:
            # Where both run for a moment, one of them is to end as replaced.
            return frozenset({0, -self.signal, 128 + self.signal, 8})
        if (self.members or self.watched) and self.act not in _BY_SIGNAL:
            # A healthy member is never ended.
            return frozenset({0})
        if self.act in _BY_SIGNAL:
            # A process that is stopped while it still loads ends by the signal itself.
            by_signal = {-self.signal, 128 + self.signal, 128 + signal.SIGTERM if self.layouts else 0}
            return frozenset({0, *by_signal})
        if self.act is Act.FREEZE:
            return frozenset({0})
        # To be started again, or no broker answers.
        return frozenset({0, 7, 5})


_BY_SIGNAL = frozenset(
    {
        Act.SIGNAL,
        Act.SIGNAL_WHILE_STOPPING,
        Act.STRIKE_ONE,
        Act.STRIKE_MEMBER,
        Act.STRIKE_WHILE_REVOKING,
        Act.STRIKE_AT_BOUND,
        Act.END_ALL,
        Act.KILL_SUPERVISOR,
        Act.FREEZE_ONE,
        *SPLITTING,
    }
)

#: processes of both modes of membership take part
MODES_CHANGE = frozenset({Act.CHANGE_MODE, Act.ROLL_MODE})

ALL = tuple(Delivery)
TRANSACTIONS = (Delivery.EXACTLY_ONCE,)
CONFIRMS_ITSELF = (Delivery.AT_LEAST_ONCE,)
KEEPS_ALL = (Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE)
CONFIRMS_AT_THE_END = (Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE, Delivery.AUTO_COMMIT)
EPOCHS, BATCHES = (1, 4), (1, 8)


class At(NamedTuple):
    """A point to strike at, in words, and under which guarantees there is one."""

    point: str
    words: str
    deliveries: tuple[Delivery, ...] = ALL
    hits: tuple[int, int] = (1, 1)


_NAMED = (
    At(Failpoint.STARTING, "during start-up"),
    At(Failpoint.FENCED, "between fencing and reading positions", TRANSACTIONS),
    At(Failpoint.POSITIONED, "between reading positions and reading records"),
    At(Failpoint.POLLED, "after poll", hits=BATCHES),
    At(Failpoint.CLAIMED, "after the commit that precedes the work", (Delivery.AT_MOST_ONCE,), BATCHES),
    At(IN_STEP, "inside a step", hits=(100, 3_000)),
    At(Failpoint.BEFORE_PRODUCE, "before produce", hits=BATCHES),
    At(Failpoint.IN_TRANSACTION, "inside the transaction", TRANSACTIONS, BATCHES),
    At(Failpoint.PRODUCED, "after produce", hits=BATCHES),
    At(Failpoint.MARKED, "before the mark of an epoch", hits=EPOCHS),
    At(Failpoint.BEFORE_FLUSH, "before flush", hits=EPOCHS),
    At(Failpoint.FLUSHED, "between flush and commit", TRANSACTIONS, EPOCHS),
    # The first is that of the start, which brings the positions that the group did not have.
    At(Failpoint.POSITIONS_SENT, "between positions and commit of the transaction", TRANSACTIONS, EPOCHS),
    At(Failpoint.DURABLE, "between durable and the answer to the mark", hits=EPOCHS),
    At(Failpoint.CONFIRMING, "between the answer to the mark and the commit", CONFIRMS_ITSELF, EPOCHS),
)
_STOPPING = (
    At(Failpoint.STOPPING, "during shutdown: the stop is seen"),
    At(Failpoint.FINISHING, "during shutdown: before the last commit", CONFIRMS_AT_THE_END),
    At(Failpoint.CLOSING, "during shutdown: the engine has returned"),
)
_SEVERAL = (
    At(Failpoint.CLAIMING, "as it takes another layout over", KEEPS_ALL),
    At(Failpoint.FENCED, "between fencing and reading positions", TRANSACTIONS),
    At(Failpoint.POLLED, "after poll", KEEPS_ALL, BATCHES),
    At(Failpoint.FLUSHED, "between flush and commit", TRANSACTIONS, EPOCHS),
    At(Failpoint.POSITIONS_SENT, "between positions and commit of the transaction", TRANSACTIONS, EPOCHS),
    At(Failpoint.DURABLE, "between durable and the answer to the mark", KEEPS_ALL, EPOCHS),
    At(Failpoint.CONFIRMING, "between the answer to the mark and the commit", CONFIRMS_ITSELF, EPOCHS),
)
#: a transaction's time-out, and how long a process stands still that is to outlast it
SHORT_MS = 6_000
PAST_IT_S = 9.0

FAULTS: tuple[Fault, ...] = (
    Fault("SIGKILL at random times", Act.SIGNAL, repetitions=RANDOM_REPETITIONS, strikes=2, two_workers=True),
    Fault(
        "SIGTERM at random times",
        Act.SIGNAL,
        signal=signal.SIGTERM,
        repetitions=RANDOM_REPETITIONS,
        strikes=2,
        two_workers=True,
    ),
    *(
        Fault(f"{how.name} {at.words}", Act.SIGNAL, at.point, how, at.deliveries, hits=at.hits, two_workers=both)
        for how, both in ((signal.SIGKILL, True), (signal.SIGTERM, False))
        for at in _NAMED
    ),
    *(
        Fault(f"{how.name} {at.words}", Act.SIGNAL_WHILE_STOPPING, at.point, how, at.deliveries)
        for how in (signal.SIGKILL, signal.SIGTERM)
        for at in _STOPPING
    ),
    Fault(
        "SIGSTOP past the transaction time-out, SIGCONT",
        Act.FREEZE,
        repetitions=RANDOM_REPETITIONS,
        away=PAST_IT_S,
        transaction_timeout_ms=SHORT_MS,
    ),
    Fault(
        "the same, while a successor runs",
        Act.FREEZE_AND_SUCCEED,
        repetitions=RANDOM_REPETITIONS,
        overlap=True,
        away=PAST_IT_S,
        transaction_timeout_ms=SHORT_MS,
    ),
    *(
        Fault(
            f"{'SIGSTOP' if act is Act.FREEZE else 'SIGSTOP and successor,'} {at.words}",
            act,
            at.point,
            deliveries=at.deliveries,
            hits=at.hits,
            overlap=act is Act.FREEZE_AND_SUCCEED,
            away=PAST_IT_S,
            transaction_timeout_ms=SHORT_MS,
        )
        for at in _NAMED
        if at.point
        in {Failpoint.PRODUCED, Failpoint.FLUSHED, Failpoint.POSITIONS_SENT, Failpoint.DURABLE, Failpoint.CONFIRMING}
        for act in (Act.FREEZE, Act.FREEZE_AND_SUCCEED)
    ),
    Fault("second instance with the same id", Act.SECOND_INSTANCE, repetitions=RANDOM_REPETITIONS, overlap=True),
    *(
        Fault(
            f"{how.name} of one of several processes at random times, N changed",
            Act.STRIKE_ONE,
            signal=how,
            deliveries=KEEPS_ALL,
            repetitions=RANDOM_REPETITIONS,
            strikes=2,
            layouts=(2, 3, 1),
        )
        for how in (signal.SIGKILL, signal.SIGTERM)
    ),
    *(
        Fault(
            f"{how.name} of one of several processes {at.words}, N changed",
            Act.STRIKE_ONE,
            at.point,
            how,
            at.deliveries,
            hits=at.hits,
            layouts=(2, 3),
        )
        for how in (signal.SIGKILL, signal.SIGTERM)
        for at in _SEVERAL
    ),
    *(
        Fault(
            f"{how.name} of all processes and their supervisor at random times, N changed",
            Act.END_ALL,
            signal=how,
            deliveries=KEEPS_ALL,
            repetitions=RANDOM_REPETITIONS,
            layouts=(2, 3, 1, 2),
        )
        for how in (signal.SIGKILL, signal.SIGTERM)
    ),
    Fault(
        "supervisor of several processes killed at random times, N changed",
        Act.KILL_SUPERVISOR,
        deliveries=KEEPS_ALL,
        repetitions=RANDOM_REPETITIONS,
        layouts=(2, 3, 1),
    ),
    *(
        Fault(
            f"SIGSTOP of one of several processes {words}, N changed, SIGCONT",
            Act.FREEZE_ONE,
            deliveries=KEEPS_ALL,
            layouts=(3, 2),
            away=away,
            transaction_timeout_ms=SHORT_MS,
        )
        for words, away in (("past the transaction time-out", PAST_IT_S), ("for 3 s", 3.0))
    ),
    Fault("broker killed for 3 s", Act.KILL_BROKER, transaction_timeout_ms=SHORT_MS),
    Fault("broker paused for 9 s", Act.PAUSE_BROKER, away=PAST_IT_S, transaction_timeout_ms=SHORT_MS),
    Fault("broker's disk full for 3 s", Act.FILL_DISK, transaction_timeout_ms=SHORT_MS),
    Fault("connections reset and refused for 9 s", Act.CUT, away=PAST_IT_S, transaction_timeout_ms=SHORT_MS),
    Fault("connections silent for 9 s", Act.SILENCE, away=PAST_IT_S, transaction_timeout_ms=SHORT_MS),
    Fault("the broker's answers lost for 3 s, then a reset", Act.DEAFEN, transaction_timeout_ms=SHORT_MS),
)


class Cell(NamedTuple):
    """One repetition of one fault under one guarantee."""

    fault: Fault
    delivery: Delivery
    workers: int
    repetition: int

    def __str__(self) -> str:
        words = self.fault.name.replace(" ", "-").replace(",", "").replace(":", "").replace("'", "").replace("()", "")
        return f"{words}-{self.delivery}-w{self.workers}-r{self.repetition}"


def matrix(faults: Sequence[Fault]) -> Iterator[Cell]:
    """Every repetition of every cell, the first repetitions of all first: a run that is cut short has seen everything."""
    for repetition in range(max(fault.repetitions for fault in faults)):
        for workers in (1, 2):
            for fault in faults:
                if repetition >= fault.repetitions or (workers > 1 and not fault.two_workers):
                    continue
                for delivery in fault.deliveries:
                    if workers == 1 or delivery in {Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE}:
                        yield Cell(fault, delivery, workers, repetition)
