"""What a start asks about its consumer group: does it have members, and how long does the broker keep offsets.

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
from loom.streaming.kafka.client_config import CLIENT_LOG, is_transient, kafka_error
from loom.streaming.kafka.cluster_faults import ClusterFaults
from loom.streaming.kafka.errors import SecondInstanceError
from loom.streaming.kafka.interruptible import result_interruptibly

__all__ = ["KEEP_ALIVE", "GroupRequest", "GroupSnapshot", "check_no_members", "keep_alive_s"]

#: seconds after which an offset that has not moved is committed again, if the broker does not say how long it keeps one
KEEP_ALIVE = 3600.0
#: An offset that moves right after its turn waits for the turn after next, so twice this share must be within what the broker
#: allows.
_SHARE = 0.45
#: seconds for one answer, awaited in slices because a far coordinator must be found and connected to first; and for
#: the group to be known
_ANSWER = 5.0
_REACH = 10.0

_RETENTION, _EXPIRY = "offsets.retention.minutes", "transactional.id.expiration.ms"


class GroupSnapshot(LoomFrozenStruct):
    """The answer."""

    #: the consumers that are subscribed with the group: client id and host of each
    members: tuple[str, ...]
    #: seconds after which an idle offset is committed again
    keep_alive_s: float


class GroupRequest:
    """A request about one group, sent when this is created; `result` waits for the answer.

    `waiting` is called between the slices of the wait and may raise.
    """

    def __init__(
        self, admin: AdminClient, group_id: str, faults: ClusterFaults, waiting: Callable[[str], None]
    ) -> None:
        self._admin = admin
        self._group_id = group_id
        self._faults = faults
        self._waiting = waiting
        self._described = self._describe()
        self._properties: Future[Any] | None = None

    def ask_broker(self, broker_id: int) -> None:
        """Ask one broker how long it keeps offsets."""
        broker = ConfigResource(ResourceType.BROKER, str(broker_id))
        self._properties = self._admin.describe_configs([broker], request_timeout=_ANSWER)[broker]

    def result(self) -> GroupSnapshot:
        """The answer of the cluster. What the client is not allowed to ask counts as absent.

        Raises `BrokerUnavailableError` if the group's coordinator does not answer within 10 s.
        """
        deadline = time.monotonic() + _REACH
        while True:
            try:
                return GroupSnapshot(_members(self._described, self._waiting), self._keep_alive())
            except KafkaException as error:
                found = kafka_error(error)
                if not is_transient(found):
                    CLIENT_LOG.info("the members of the group %s are not known: %s", self._group_id, found.str())
                    return GroupSnapshot((), KEEP_ALIVE)
                if time.monotonic() > deadline:
                    raise self._faults.failure(
                        f"the coordinator of the group {self._group_id!r} does not answer within {_REACH:.0f} s", found
                    ) from None
            self._waiting("the coordinator of the group")
            self._admin.poll(0.1)
            self._described = self._describe()

    def _describe(self) -> Future[Any]:
        asked = self._admin.describe_consumer_groups([self._group_id], request_timeout=_ANSWER)
        found: Future[Any] = asked[self._group_id]
        return found

    def _keep_alive(self) -> float:
        if self._properties is None:
            return KEEP_ALIVE
        try:
            found = result_interruptibly(self._properties, lambda: self._waiting("the properties of a broker"))
            return keep_alive_s(*(_number(found, name) for name in (_RETENTION, _EXPIRY)))
        except KafkaException as error:
            CLIENT_LOG.info("how long the broker keeps offsets is not known: %s", kafka_error(error).str())
            return KEEP_ALIVE


def check_no_members(group: GroupSnapshot, group_id: str, so: str = "Nothing was read or written") -> None:
    """Raise `SecondInstanceError` for a group that other consumers are subscribed with; `so` says what follows for the run."""
    if group.members:
        raise SecondInstanceError(
            f"other consumers are subscribed with the group {group_id!r}: {', '.join(group.members)}. A flow reads by a fixed "
            "assignment and does not share its group: stop them, or give the flow a group_id of its own. A consumer "
            f"that was killed stays a member until its session times out (45 s by default). {so}"
        )


def keep_alive_s(retention_minutes: int | None, expiration_ms: int | None) -> float:
    """How often an idle offset is committed again: at least hourly, and well below half of what the broker allows.

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


def _number(found: Mapping[str, Any], name: str) -> int | None:
    value = found[name].value if name in found else None
    return int(value) if value is not None and str(value).isdigit() else None
