"""What happens to an offset that the log does not hold: an error, or a reset that was configured and is logged.

Used where a run starts, and when the broker reports it to a running consumer.
"""

from __future__ import annotations

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.errors import OffsetOutOfRangeError
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.record import TopicPartition

__all__ = ["LogRange", "reset_expired_offset", "reset_offset"]

_log = get_logger(__name__)


class LogRange(LoomFrozenStruct):
    """The offsets that a log holds: from `low` up to, and without, `high`."""

    low: int
    high: int

    def holds(self, position: int) -> bool:
        """Whether reading may begin there; the end is a place too."""
        return self.low <= position <= self.high


def reset_offset(
    settings: ConsumerSettings, partition: TopicPartition, position: int, log: LogRange, *, recreated: bool = False
) -> int:
    """Where to continue instead of `position`, by `on_out_of_range`; what that skips is logged.

    `recreated` says that the log is another one than that in which the position was. Raises `OffsetOutOfRangeError`
    under `fail`.
    """
    what = "the topic was recreated" if recreated else "records are gone, or the topic was recreated"
    if settings.on_out_of_range == "fail":
        raise OffsetOutOfRangeError(
            f"the group {settings.group_id!r} is at offset {position} of {partition}, but the log holds {log.low} to "
            f"{log.high}: {what}. Reset the group to an offset that exists, use another group_id, or set "
            "on_out_of_range: earliest or latest"
        )
    offset = log.low if settings.on_out_of_range == "earliest" else log.high
    # Beyond the end, or in another log, the offset does not say what was read: all of this log is unread.
    unread_from = log.low if recreated or position > log.high else max(position, log.low)
    deleted = max(log.low - position, 0) if not recreated else 0
    _log.error(
        "offset_reset",
        partition=str(partition),
        offset=position,
        log_begins=log.low,
        log_ends=log.high,
        continues_at=offset,
        records_deleted_unread=deleted,
        records_skipped=offset - unread_from,
        why=what,
        by=f"on_out_of_range: {settings.on_out_of_range}",
    )
    return offset


def reset_expired_offset(settings: ConsumerSettings, partition: TopicPartition, log: LogRange) -> int:
    """Where to continue in a partition whose offset the group has lost, by `on_out_of_range`; that is logged.

    Raises `OffsetOutOfRangeError` under `fail`.
    """
    what = (
        f"the group {settings.group_id!r} no longer has an offset in {partition}: it expired on the broker "
        "(offsets.retention.minutes), or was deleted"
    )
    if settings.on_out_of_range == "fail":
        raise OffsetOutOfRangeError(
            f"{what}. How far it was read is unknown; its log holds {log.low} to {log.high}. Set the group's offset, use "
            "another group_id, or set on_out_of_range: earliest or latest"
        )
    offset = log.low if settings.on_out_of_range == "earliest" else log.high
    _log.error(
        "offset_expired",
        partition=str(partition),
        log_begins=log.low,
        log_ends=log.high,
        continues_at=offset,
        records_skipped=offset - log.low,
        why=what,
        by=f"on_out_of_range: {settings.on_out_of_range}",
    )
    return offset
