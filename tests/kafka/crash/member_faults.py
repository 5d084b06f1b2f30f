"""What is done to members of a group, and where the mode of membership changes. Data only, as `faults`."""

from __future__ import annotations

import signal

from loom.streaming.failpoints import Failpoint
from tests.kafka.crash.faults import (
    BATCHES,
    CONFIRMS_ITSELF,
    EPOCHS,
    KEEPS_ALL,
    PAST_IT_S,
    RANDOM_REPETITIONS,
    SHORT_MS,
    TRANSACTIONS,
    Act,
    At,
    Fault,
)

__all__ = ["MEMBER_FAULTS"]

_MEMBERS = (
    At(Failpoint.ASSIGNED, "as partitions are given to it", KEEPS_ALL),
    At(Failpoint.POLLED, "after poll", KEEPS_ALL, BATCHES),
    At(Failpoint.FLUSHED, "between flush and commit", TRANSACTIONS, EPOCHS),
    At(Failpoint.METADATA_CAPTURED, "between capturing its metadata and sending positions", TRANSACTIONS, EPOCHS),
    At(Failpoint.POSITIONS_SENT, "between positions and commit of the transaction", TRANSACTIONS, EPOCHS),
    At(Failpoint.DURABLE, "between durable and the answer to the mark", KEEPS_ALL, EPOCHS),
    At(Failpoint.CONFIRMING, "between the answer to the mark and the commit", CONFIRMS_ITSELF, EPOCHS),
)
MEMBER_FAULTS: tuple[Fault, ...] = (
    *(
        Fault(
            f"{how.name} of one of {count} members{' with names' if named else ''} at random times",
            Act.STRIKE_MEMBER,
            signal=how,
            deliveries=KEEPS_ALL,
            repetitions=RANDOM_REPETITIONS,
            strikes=2,
            members=count,
            named=named,
        )
        for how in (signal.SIGKILL, signal.SIGTERM)
        for count in (1, 2, 3)
        for named in (False, True)
    ),
    *(
        Fault(
            f"{how.name} of one of 2 members{' with names' if named else ''} {at.words}",
            Act.STRIKE_MEMBER,
            at.point,
            how,
            at.deliveries,
            hits=at.hits,
            members=2,
            named=named,
        )
        for how in (signal.SIGKILL, signal.SIGTERM)
        for named in (False, True)
        for at in _MEMBERS
    ),
    *(
        Fault(
            f"SIGSTOP of one of {count} members{' with names' if named else ''} {words}, SIGCONT",
            Act.FREEZE_MEMBER,
            deliveries=KEEPS_ALL,
            members=count,
            named=named,
            away=away,
            transaction_timeout_ms=SHORT_MS,
        )
        for count in (1, 2, 3)
        for named in (False, True)
        for words, away in (("past its session and transaction", PAST_IT_S), ("for 3 s", 3.0))
    ),
    *(
        Fault(
            f"SIGSTOP of one of 2 members {at.words}, past its session, SIGCONT",
            Act.FREEZE_MEMBER,
            at.point,
            deliveries=at.deliveries,
            hits=at.hits,
            members=2,
            away=PAST_IT_S,
            transaction_timeout_ms=SHORT_MS,
        )
        for at in _MEMBERS
    ),
    *(
        Fault(
            f"{how.name} of a member {words}",
            Act.STRIKE_AT_BOUND,
            at,
            how,
            KEEPS_ALL,
            members=1,
        )
        for how in (signal.SIGKILL, signal.SIGTERM)
        for at, words in (
            (Failpoint.REVOKING_AT_BOUND, "whose step outlasts a revocation"),
            (Failpoint.REVOKING, "as it is told to give partitions up"),
        )
    ),
    *(
        Fault(
            f"a member joins {count} others{' with names' if named else ''} and leaves",
            Act.JOIN_AND_LEAVE,
            deliveries=KEEPS_ALL,
            members=count,
            named=named,
        )
        for named in (False, True)
        for count in (1, 2)
    ),
    *(
        Fault(
            f"{words} at random times, supervised members{' with names' if named else ''}, their number changed",
            act,
            deliveries=KEEPS_ALL,
            strikes=2,
            layouts=(2, 3, 1),
            grouped=True,
            named=named,
        )
        for words, act in (
            ("SIGKILL of one", Act.STRIKE_ONE),
            ("SIGKILL of all", Act.END_ALL),
            ("supervisor killed", Act.KILL_SUPERVISOR),
        )
        for named in (False, True)
    ),
    *(
        Fault(
            f"from fixed to group and back, {how.name} of each predecessor",
            Act.CHANGE_MODE,
            signal=how,
            deliveries=KEEPS_ALL,
            away=PAST_IT_S,
            transaction_timeout_ms=SHORT_MS,
        )
        for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
    ),
    Fault(
        "two fixed processes are rolled to members, one after the other",
        Act.ROLL_MODE,
        signal=signal.SIGTERM,
        deliveries=KEEPS_ALL,
    ),
)
