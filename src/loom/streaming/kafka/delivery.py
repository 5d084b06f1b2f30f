"""The delivery modes: one row each, which says what a mode asks of every part of a run. No client is imported here.

Other code reads a field of the row. A new mode is a name and a row, both here.
"""

from __future__ import annotations

from enum import StrEnum

from loom.core.model import LoomFrozenStruct

__all__ = ["Delivery", "DeliveryMode", "mode_of"]


class Delivery(StrEnum):
    """What is guaranteed for each record; see the delivery page of the docs.

    >>> Delivery("at_least_once")
    <Delivery.AT_LEAST_ONCE: 'at_least_once'>
    """

    AT_MOST_ONCE = "at_most_once"
    AT_LEAST_ONCE = "at_least_once"
    EXACTLY_ONCE = "exactly_once"


class DeliveryMode(LoomFrozenStruct, kw_only=True):
    """What one delivery mode means."""

    #: its name in the config; `None` for what holds where none is set
    delivery: Delivery | None
    #: the mode in a word or two
    label: str
    #: what a start says of it
    summary: str
    #: results and offsets become visible together, in one transaction per epoch
    transaction: bool = False
    #: the source commits the offsets of a batch before the batch is processed
    commits_before_work: bool = False
    #: the source commits offsets after their results have become durable
    commits_behind_mark: bool = False
    #: the client commits by itself
    commits_by_client: bool = False
    #: a record may be committed without having become a result
    may_lose: bool = False
    #: at a stop, records that a node keeps are emitted; otherwise they are discarded and read again
    emits_kept_on_stop: bool = False


_MODES = {
    mode.delivery: mode
    for mode in (
        DeliveryMode(
            delivery=Delivery.AT_MOST_ONCE,
            label="at_most_once",
            summary="at_most_once",
            commits_before_work=True,
            may_lose=True,
            emits_kept_on_stop=True,
        ),
        DeliveryMode(
            delivery=Delivery.AT_LEAST_ONCE,
            label="at_least_once",
            summary="at_least_once",
            commits_behind_mark=True,
        ),
        DeliveryMode(
            delivery=Delivery.EXACTLY_ONCE,
            label="exactly_once",
            summary="exactly_once",
            transaction=True,
        ),
        DeliveryMode(
            delivery=None,
            label="best effort",
            summary="best effort: may lose and may repeat",
            commits_by_client=True,
            may_lose=True,
            emits_kept_on_stop=True,
        ),
    )
}
#: what holds where no delivery is set, by the consumer's `enable_auto_commit`
_NOT_SET = {True: _MODES[None], False: _MODES[Delivery.AT_LEAST_ONCE]}


def mode_of(delivery: Delivery | None, *, auto_commit: bool = True) -> DeliveryMode:
    """The mode of a delivery; where none is set it follows from `enable_auto_commit`.

    >>> mode_of(Delivery.EXACTLY_ONCE).transaction, mode_of(None).may_lose, mode_of(None, auto_commit=False).label
    (True, True, 'at_least_once')
    """
    return _MODES[delivery] if delivery is not None else _NOT_SET[auto_commit]
