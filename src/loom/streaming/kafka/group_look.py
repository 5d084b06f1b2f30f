"""What a start asks about its consumer group: has it members, and how long does the broker keep what is confirmed.

Asked once, before anything is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.client_config import CLIENT_LOG, is_transient, kafka_error, make_client
from loom.streaming.kafka.cluster_faults import ClusterFaults
from loom.streaming.kafka.errors import SecondInstanceError
from loom.streaming.kafka.interruptible import result_interruptibly
from loom.streaming.kafka.reserved_properties import shared_properties
from loom.streaming.kafka.topics import EMBEDDED

__all__ = ["KEEP_ALIVE", "GroupLook", "check_no_members", "keep_alive_s", "look_at_group"]

#: seconds after which a position that has not moved is confirmed again, where the broker does not say how long it keeps one
KEEP_ALIVE = 3600.0
#: A position that moves right after its turn waits for the next but one, so twice this share must lie within what the broker
#: allows.
_SHARE = 0.45
#: seconds of one request, and within which the group must be known
_CALL = 1.5
#: seconds for one answer that is waited for in slices: a far coordinator must be found and connected to first
_ANSWER = 5.0
_REACH = 10.0

_RETENTION, _EXPIRY = "offsets.retention.minutes", "transactional.id.expiration.ms"


class GroupLook(LoomFrozenStruct):
    """What was seen."""

    #: who is subscribed with the group: client id and host of each
    members: tuple[str, ...]
    #: seconds after which an idle position is confirmed again
    keep_alive_s: float


def look_at_group(
    config: Mapping[str, Any], group_id: str, waiting: Callable[[str], None], faults: ClusterFaults | None = None
) -> GroupLook:
    """Ask the cluster about a group. `waiting` is called between the slices of every wait and may raise.

    What the client may not ask counts as not there. Raises `BrokerUnavailableError` when the group's coordinator does not
    answer within 10 s.
    """
    faults = faults or ClusterFaults(config)
    admin = make_client(AdminClient, shared_properties(config), faults)
    deadline = time.monotonic() + _REACH
    while True:
        try:
            # All topics are listed: asking for one by name could create it.
            cluster = admin.list_topics(timeout=_CALL)
            if str(cluster.cluster_id).startswith(EMBEDDED):
                # The client's in-process broker has no such requests.
                return GroupLook((), KEEP_ALIVE)
            broker = ConfigResource(ResourceType.BROKER, str(next(iter(cluster.brokers))))
            asked = admin.describe_consumer_groups([group_id], request_timeout=_ANSWER)[group_id]
            kept = admin.describe_configs([broker], request_timeout=_ANSWER)[broker]
            return GroupLook(_members(asked, waiting), _keep_alive(kept, waiting))
        except KafkaException as error:
            found = kafka_error(error)
            if not is_transient(found):
                CLIENT_LOG.info("the members of the group %s are not known: %s", group_id, found.str())
                return GroupLook((), KEEP_ALIVE)
            if time.monotonic() > deadline:
                raise faults.failure(
                    f"the coordinator of the group {group_id!r} does not answer within {_REACH:.0f} s", found
                ) from None
        waiting("the coordinator of the group")
        admin.poll(0.1)


def check_no_members(look: GroupLook, group_id: str) -> None:
    """Raise `SecondInstanceError` for a group that other consumers are subscribed with."""
    if look.members:
        raise SecondInstanceError(
            f"other consumers are subscribed with the group {group_id!r}: {', '.join(look.members)}. A flow reads by a fixed "
            "assignment and does not share its group: stop them, or give the flow a group_id of its own. A consumer "
            "that was killed stays a member until its session times out (45 s by default). Nothing was read or written"
        )


def keep_alive_s(retention_minutes: int | None, expiration_ms: int | None) -> float:
    """How often an idle position is confirmed again: at least hourly, and well below half of what the broker allows.

    >>> keep_alive_s(10080, 604_800_000)
    3600.0
    >>> keep_alive_s(10080, 8_000)
    3.6
    """
    kept = [60.0 * retention_minutes] if retention_minutes else []
    kept += [expiration_ms / 1000] if expiration_ms else []
    return min(KEEP_ALIVE, *(seconds * _SHARE for seconds in kept)) if kept else KEEP_ALIVE


def _members(asked: Future[Any], waiting: Callable[[str], None]) -> tuple[str, ...]:
    found = result_interruptibly(asked, lambda: waiting("the coordinator of the group"))
    return tuple(f"{member.client_id} at {member.host.lstrip('/')}" for member in found.members)


def _keep_alive(asked: Future[Any], waiting: Callable[[str], None]) -> float:
    try:
        found = result_interruptibly(asked, lambda: waiting("the properties of a broker"))
        return keep_alive_s(*(_number(found, name) for name in (_RETENTION, _EXPIRY)))
    except KafkaException as error:
        CLIENT_LOG.info("how long the broker keeps positions is not known: %s", kafka_error(error).str())
        return KEEP_ALIVE


def _number(found: Mapping[str, Any], name: str) -> int | None:
    value = found[name].value if name in found else None
    return int(value) if value is not None and str(value).isdigit() else None
