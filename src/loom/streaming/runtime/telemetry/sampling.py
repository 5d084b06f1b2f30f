"""Which records of those that come without a trace are followed. No random number is drawn for a record, few for a batch."""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["Sampler"]

#: One batch in so many is looked at, as long as no more than so many of its records are followed.
_MOST_BATCHES, _MOST_RECORDS = 100, 1_000
#: From this share on it is each batch: where much is followed, few records are to show it too.
_OF_EACH_BATCH = 0.1
#: below this share it is one of the most batches anyway; at least so much, so that it can be divided by
_LEAST = 0.001


class Sampler:
    """Draws the records of batches that are followed, each with the same probability.

    Those that are come from few batches, and are neighbours there: the first record that is followed in a batch takes many times
    as long as the next ones do, since nothing that works on it is in the caches of the processor. Of so many batches in a row it
    is one, whichever, so that about as many records are followed in any minute.

    >>> list(Sampler(1.0).of_batch(3))
    [0, 1, 2]

    Args:
        ratio: the share of records that are followed, 0 to 1.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        # Of its own: whoever seeds the one of the process would have the same records followed in all of them.
        self._random = random.Random()
        #: of the batches in a row, how many they are, those that are left, and how many are left behind the one that is looked at
        self._apart = 1
        self._left = self._behind = 0

    def of_batch(self, records: int) -> Sequence[int]:
        """The indices of those that are followed, in order.

        Args:
            records: how many there are in the batch.
        """
        if self._left == 0:
            self._apart = self._left = self._batches_apart(records)
            self._behind = self._random.randrange(self._apart)
        self._left -= 1
        if self._left != self._behind or not records:
            return ()
        draw = self._random
        count = int(records * self._ratio * self._apart + draw.random())
        if count >= records:
            return range(records)
        # From any of them on, and again from the first, so that those at the ends are as likely.
        first = draw.randrange(records)
        end = first + count
        return range(first, end) if end <= records else [*range(end - records), *range(first, records)]

    def _batches_apart(self, records: int) -> int:
        """Of how many batches of about this size one is looked at: four times as many for half the share."""
        ratio = max(self._ratio, _LEAST)
        by_share = (_OF_EACH_BATCH / ratio) ** 2
        return max(1, int(min(_MOST_BATCHES, by_share, _MOST_RECORDS / (ratio * max(records, 1)))))
