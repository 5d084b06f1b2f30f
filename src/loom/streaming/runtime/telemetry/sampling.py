"""Which records of those that come without a trace are followed: few random numbers for those that are, none for the others."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

__all__ = ["Gaps", "Sampler"]

_NEVER = 1 << 62
#: the smallest share of records that are followed; of one in so many, none
_LEAST = 1e-16
#: one batch in so many is looked at, as long as no more than a fifth of its records is followed
_MOST_BATCHES, _MOST_OF_BATCH = 16, 0.2


class Sampler:
    """Draws the records of batches that are followed, each with the same probability.

    Those that are come from some batches and not from all: the first record that is followed in a batch takes many times as
    long as the next ones do, since nothing that works on it is in the caches of the processor. Of so many batches in a row it is
    one, whichever, so that about as many records are followed in any minute.

    >>> list(Sampler(1.0).of_batch(3))
    [0, 1, 2]

    Args:
        ratio: the share of records that are followed, 0 to 1.
    """

    def __init__(self, ratio: float) -> None:
        self._apart = apart = max(1, int(min(_MOST_BATCHES, _MOST_OF_BATCH / ratio))) if ratio > 0 else 1
        self._records = Gaps(ratio * apart)
        self._random = random.Random()
        #: of the batches in a row, those that are left, and how many are left behind the one that is looked at
        self._left = self._behind = 0

    def of_batch(self, records: int) -> Sequence[int]:
        """The indices of those that are followed.

        Args:
            records: how many there are in the batch.
        """
        if self._left == 0:
            self._left, self._behind = self._apart, self._random.randrange(self._apart)
        self._left -= 1
        return self._records.among(records) if self._left == self._behind else ()


class Gaps:
    """Draws how many records pass until the next one is followed, so that each is with the same probability.

    >>> list(Gaps(1.0).among(3)), list(Gaps(0.0).among(3))
    ([0, 1, 2], [])

    Args:
        ratio: the share of records that are followed, 0 to 1.
    """

    def __init__(self, ratio: float) -> None:
        #: below that no record is ever followed, and the logarithm is as good as none
        self._none_in_one = math.log1p(-ratio) if _LEAST < ratio < 1 else 0.0
        self._all = ratio >= 1
        # Of its own: whoever seeds the one of the process would have the same records followed in all of them.
        self._random = random.Random()
        self._next = self._gap()

    def among(self, records: int) -> Sequence[int]:
        """The indices of those that are followed, of the next records.

        Args:
            records: how many they are.
        """
        following = self._next
        if following >= records:
            self._next = following - records
            return ()
        if self._all:
            return range(records)
        found = []
        none_in_one, draw, log = self._none_in_one, self._random.random, math.log
        while following < records:
            found.append(following)
            following += 1 + int(log(1 - draw()) / none_in_one)
        self._next = following - records
        return found

    def _gap(self) -> int:
        if self._all:
            return 0
        return int(math.log(1 - self._random.random()) / self._none_in_one) if self._none_in_one else _NEVER
