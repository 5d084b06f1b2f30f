"""Waiting before a process takes its own transactional id again, until it is sure that no successor has it.

A broker takes the id away from a transaction that outlasted its time-out as it does for a successor, with the same error. A
successor is told by its run id, which it commits right after it has fenced us; so that time has to pass first.
"""

from __future__ import annotations

import time

from loom.core.logger import get_logger
from loom.streaming.kafka.offset_metadata import Committed
from loom.streaming.kafka.patience import Patience
from loom.streaming.kafka.transaction_group import TransactionGroup
from loom.streaming.record import TopicPartition

__all__ = ["await_no_successor"]

_log = get_logger(__name__)

#: seconds between two looks at the group's offsets
_LOOK = 0.1
#: The time that a successor has for its first commit: that of our own start several times, and never less than so many
#: seconds. Measured: 0.1 to 0.3 s, on a machine whose cores have much else to do 1 s.
_MARGIN, _LEAST_S = 3.0, 2.0


def await_no_successor(
    group: TransactionGroup, start_took_s: float, timeout_ms: int
) -> dict[TopicPartition, Committed]:
    """The group's offsets, once no transaction is open on them and a successor would have committed.

    Args:
        group: the group of this run.
        start_took_s: how long the start of this run took from its fencing to its first commit.
        timeout_ms: how long a transaction may keep the offsets from being read.

    Raises:
        SecondInstanceError: if another run has committed an offset.
        BrokerUnavailableError: if the offsets cannot be read in time.
    """
    margin = max(start_took_s * _MARGIN, _LEAST_S)
    _log.warning("successor_awaited", seconds=round(margin, 1), why="it may have taken the transactional id")
    over = time.monotonic() + margin
    patience = Patience(
        "the broker to end the transaction that outlasted its time-out",
        timeout_ms / 1000,
        lambda: "an open transaction, or a broker that is away, keeps the group's offsets from being read",
    )
    while True:
        late = time.monotonic() >= over
        committed = group.settled()
        if committed is not None:
            group.check_committed(committed)
            if late:
                return committed
        else:
            patience.spend("the group's offsets are not known yet")
        group.serve(_LOOK)
