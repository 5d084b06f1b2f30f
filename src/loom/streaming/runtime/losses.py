"""What a failed run may have lost, under the deliveries that commit before processing. Counted and logged.

Asked by the source when its client is closed before the run has come to its end in order.
"""

from __future__ import annotations

from loom.core.logger import get_logger
from loom.streaming.metrics import Counts
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.offsets import WorkerOffsets

__all__ = ["report_losses"]

_log = get_logger(__name__)


def report_losses(offsets: WorkerOffsets, counts: Counts) -> None:
    """Log which records were passed on and are not known to be written; they are not read again.

    The count is of offsets, so it is an upper bound: some may hold no record, and some results may
    have been written without an acknowledgement.
    """
    missing: dict[TopicPartition, tuple[int, int]] = {}
    for row in offsets.rows:
        start = row.start if row.committable is None else row.committable
        if start is not None and row.read is not None and row.read > start:
            missing[row.partition] = (start, row.read)
    if missing:
        lost = sum(end - start for start, end in missing.values())
        counts.lost += lost
        _log.error(
            "records_lost",
            at_most=lost,
            note="committed before they were processed, and not known to be written",
            offsets={str(partition): f"{start} to {end - 1}" for partition, (start, end) in sorted(missing.items())},
        )
