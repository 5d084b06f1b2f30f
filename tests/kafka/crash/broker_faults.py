"""The part of the table in which brokers of a cluster go and come back, a host is cut off, or a member rejoins inside an
epoch. Data only.

The whole table is here too.
"""

from __future__ import annotations

from loom.streaming.failpoints import Failpoint
from tests.kafka.crash.broker_acts import BrokerAct, NetworkAct
from tests.kafka.crash.faults import EPOCHS, FAULTS, KEEPS_ALL, TRANSACTIONS, Act, Fault
from tests.kafka.crash.flow_faults import FLOW_FAULTS
from tests.kafka.crash.member_faults import MEMBER_FAULTS

__all__ = ["ALL_FAULTS"]

#: seconds that a killed broker stays away: three times as long as the others take to notice
_AWAY, _LONG_PAUSE = 9.0, 30.0
#: seconds in which a broker is taken for gone, and another one leads in its place
_SHORT_PAUSE = 6.0
#: milliseconds; a transaction outlasts the freeze, so that only the group knows that its owner was away
_OUTLASTS = 30_000
#: milliseconds; shorter than a host is cut off
_SHORT_TRANSACTION = 6_000

BROKER_FAULTS: tuple[Fault, ...] = (
    *(
        Fault(
            f"three brokers: {words}{', of 2 members' if members else ''}",
            act,
            deliveries=deliveries,
            members=members,
            away=away,
            watched=True,
        )
        for act, words, away, deliveries in (
            (BrokerAct.KILL_LEADER, "leader of a partition killed for 9 s", _AWAY, KEEPS_ALL),
            (BrokerAct.KILL_GROUP_COORDINATOR, "group coordinator killed for 9 s", _AWAY, KEEPS_ALL),
            (BrokerAct.KILL_TRANSACTION_COORDINATOR, "transaction coordinator killed for 9 s", _AWAY, TRANSACTIONS),
            (BrokerAct.PAUSE_ONE, "one paused for 30 s", _LONG_PAUSE, KEEPS_ALL),
            (BrokerAct.ROLL, "rolling restart", 0.0, KEEPS_ALL),
        )
        for members in (0, 2)
    ),
    *(
        Fault(
            f"three brokers: SIGKILL after a commit, between the markers of {words}",
            act,
            Failpoint.POSITIONS_SENT,
            deliveries=TRANSACTIONS,
            # The first is that of the start, which writes no output.
            hits=(2, 4),
            away=_SHORT_PAUSE,
        )
        for act, words in (
            (BrokerAct.SPLIT_OUTPUTS, "offsets and an output"),
            (BrokerAct.SPLIT_OFFSETS, "outputs and offsets"),
        )
    ),
    *(
        Fault(
            f"SIGSTOP of one of 2 members{' with names' if named else ''} {words}, SIGCONT, goes on only when it has rejoined",
            Act.FREEZE_MEMBER,
            at,
            deliveries=deliveries,
            hits=EPOCHS,
            members=2,
            named=named,
            rejoins=True,
            away=9.0,
            transaction_timeout_ms=_OUTLASTS,
        )
        for at, words, deliveries in (
            (Failpoint.PRODUCED, "after produce", KEEPS_ALL),
            (Failpoint.FLUSHED, "between flush and commit", TRANSACTIONS),
            (Failpoint.METADATA_CAPTURED, "between capturing its metadata and sending positions", TRANSACTIONS),
        )
        for named in (False, True)
    ),
)

NETWORK_FAULTS: tuple[Fault, ...] = tuple(
    Fault(
        f"{words} for 9 s{', of 2 members' if members else ''}",
        act,
        deliveries=KEEPS_ALL,
        members=members,
        watched=True,
        away=_AWAY,
        transaction_timeout_ms=_SHORT_TRANSACTION,
    )
    for act, words in (
        (NetworkAct.LOSE_ALL, "a host cut off"),
        (NetworkAct.LOSE_REQUESTS, "all that a host sends lost"),
        (NetworkAct.LOSE_ANSWERS, "all that is sent to a host lost"),
    )
    for members in (0, 2)
)

ALL_FAULTS = FAULTS + MEMBER_FAULTS + FLOW_FAULTS + BROKER_FAULTS + NETWORK_FAULTS
