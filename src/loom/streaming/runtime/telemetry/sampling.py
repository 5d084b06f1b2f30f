"""Which records of those that come without a trace are followed: one random number for each that is, none for the others."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

__all__ = ["Gaps"]

_NEVER = 1 << 62


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
