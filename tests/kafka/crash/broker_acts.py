"""What is done to the brokers of a cluster, and to the network of a host with a process of the flow."""

from __future__ import annotations

from enum import StrEnum


class BrokerAct(StrEnum):
    """What `broker_strikes` does."""

    KILL_LEADER = "kill leader"  #: the broker that leads a partition of the source is killed, and started again
    KILL_GROUP_COORDINATOR = "kill group coordinator"  #: the same, of the one that keeps the offsets
    KILL_TRANSACTION_COORDINATOR = "kill transaction coordinator"  #: the same, of the one that ends the transactions
    PAUSE_ONE = "pause one broker"  #: one of three stands still
    SPLIT_OUTPUTS = "split outputs"  #: SIGKILL after a commit that does not reach the broker of an output
    SPLIT_OFFSETS = "split offsets"  #: the same with the broker of the offsets
    ROLL = "roll brokers"  #: one after the other is stopped in order and started again


#: they keep the brokers from reaching one of them
SPLITTING = frozenset({BrokerAct.SPLIT_OUTPUTS, BrokerAct.SPLIT_OFFSETS})


class NetworkAct(StrEnum):
    """What `network_strikes` does. Each process of the flow has a host of its own; connections stay open."""

    LOSE_ALL = "lose all"  #: the cable of one host is cut
    LOSE_REQUESTS = "lose requests"  #: nothing that one host sends arrives
    LOSE_ANSWERS = "lose answers"  #: nothing that is sent to one host arrives
