"""Which records of those that come without a trace are followed: few random numbers for those that are, none for the others."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

__all__ = ["Gaps", "Sampler"]

_NEVER = 1 << 62
#: one batch in so many is looked at, as long as no more than a tenth of its records is followed
_MOST_BATCHES, _MOST_OF_BATCH = 8, 0.1


class Sampler:
    """Draws the records of batches that are followed, each with the same probability.

    Those that are come from some batches and not from all: the first record that is followed in a batch takes many times as
    long as the next ones do, since nothing that works on it is in the caches of the processor.

    >>> Sampler(1.0).of_batch(3)
    [0, 1, 2]

    Args:
        ratio: the share of records that are followed, 0 to 1.
    """

    def __init__(self, ratio: float) -> None:
        apart = min(_MOST_BATCHES, max(1.0, _MOST_OF_BATCH / ratio)) if ratio > 0 else 1.0
        self._batches, self._records = Gaps(1 / apart), Gaps(ratio * apart)

    def of_batch(self, records: int) -> Sequence[int]:
        """The indices of those that are followed.

        Args:
            records: how many there are in the batch.
        """
        return self._records.among(records) if self._batches.among(1) else ()


class Gaps:
    """Draws how many records pass until the next one is followed, so that each is with the same probability.

    >>> Gaps(1.0).among(3), Gaps(0.0).among(3)
    ([0, 1, 2], ())

    Args:
        ratio: the share of records that are followed, 0 to 1.
    """

    def __init__(self, ratio: float) -> None:
        self._none_in_one = math.log1p(-ratio) if 0 < ratio < 1 else 0.0
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
        found = []
        while following < records:
            found.append(following)
            following += 1 + self._gap()
        self._next = following - records
        return found

    def _gap(self) -> int:
        if self._all:
            return 0
        if self._none_in_one == 0:
            return _NEVER
        # A ratio next to nothing makes the gap infinite.
        return int(min(_NEVER, math.log(1 - self._random.random()) / self._none_in_one))
