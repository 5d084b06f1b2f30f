"""The two base structs of everything that is declared, planned, configured or sent.

Payload types of users and our own declarations inherit from here; msgspec does the work.
"""

from __future__ import annotations

from typing import dataclass_transform

import msgspec

__all__ = ["LoomFrozenStruct", "LoomStruct"]


class LoomStruct(msgspec.Struct):
    """A mutable, typed record.

    >>> class Order(LoomStruct):
    ...     id: int
    ...     amount: float = 0.0
    >>> Order(7).amount
    0.0
    """


# Tells type checkers what msgspec does: a subclass of a frozen struct is frozen too.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class LoomFrozenStruct(msgspec.Struct, frozen=True):
    """An immutable, typed record that compares (and hashes, where its fields do) by value.

    >>> class Point(LoomFrozenStruct):
    ...     x: int
    ...     y: int
    >>> Point(1, 2) == Point(1, 2)
    True
    """
