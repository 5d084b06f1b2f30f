"""Settings of a member of a consumer group, and what follows from them. No client is imported here.

Only the classic protocol is used: under the newer one a broker accepts offsets of partitions that were revoked, and a killed
static member cannot come back until a time-out of the broker's (45 s) is over (measured with Apache Kafka 4.1).
"""

from __future__ import annotations

import os
from enum import StrEnum

from loom.core.config.field_error import FieldError

__all__ = ["INSTANCE_ID", "Membership", "check_membership", "instance_name", "member_properties"]

#: the environment variable that names this process as a static member
INSTANCE_ID = "LOOM_GROUP_INSTANCE_ID"
#: the number of a process among those that one command has started
_PROCESS_ID = "LOOM_PROCESS_ID"
#: A member learns from the answer to a heartbeat that the others rebalance. Until all have, nobody reads the partitions that
#: one has given up: with the client's 3 s a join stopped them for 2 s (measured with 2 s), so it is asked more often.
_HEARTBEATS = 3
_LONGEST_HEARTBEAT_MS = 500


class Membership(StrEnum):
    """Who reads which partition of the source.

    >>> Membership("group")
    <Membership.GROUP: 'group'>
    """

    FIXED = "fixed"  #: this process reads a fixed part of them
    GROUP = "group"  #: the members of the consumer group share them


def check_membership(
    membership: Membership, instance_id: str | None, session_timeout_ms: int, max_poll_interval_ms: int
) -> None:
    """Raise `FieldError` for settings that do not go together."""
    if instance_id is not None and membership is not Membership.GROUP:
        raise FieldError(
            "group_instance_id", f"has no meaning with membership: {membership.value}", "set membership: group"
        )
    if max_poll_interval_ms < session_timeout_ms:
        raise FieldError(
            "max_poll_interval_ms",
            f"is {max_poll_interval_ms}, and session_timeout_ms is {session_timeout_ms}",
            "make it at least as long",
        )


def instance_name(settings_name: str | None) -> str | None:
    """The name of this process as a static member: the environment's before the config's; `None` for a dynamic member.

    Each of several processes that one command has started adds its number.
    """
    name, number = os.environ.get(INSTANCE_ID) or settings_name, os.environ.get(_PROCESS_ID)
    return f"{name}-{number}" if name and number else name


def member_properties(
    instance_id: str | None, session_timeout_ms: int, max_poll_interval_ms: int
) -> dict[str, str | int]:
    """The client properties of a member.

    >>> member_properties("orders-0", 10_000, 300_000)["heartbeat.interval.ms"]
    500
    """
    properties: dict[str, str | int] = {
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_timeout_ms,
        "heartbeat.interval.ms": max(1, min(_LONGEST_HEARTBEAT_MS, session_timeout_ms // _HEARTBEATS)),
        "max.poll.interval.ms": max_poll_interval_ms,
    }
    name = instance_name(instance_id)
    return properties if name is None else {**properties, "group.instance.id": name}
