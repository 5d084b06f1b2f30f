"""The partition of a key, chosen as the client and every JVM producer choose it.

Used for topics whose partition count is fixed at the start, so that keys keep their partition when the topic grows. For
all others the client chooses. Hot path of such topics.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["murmur2", "partition_of"]

_WORD = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C


# The hash costs some microseconds in Python, and the keys of entities come again and again.
@lru_cache(maxsize=1 << 14)
def partition_of(key: bytes, count: int) -> int:
    """The partition of a key (the client's `murmur2_random`, for records that have one).

    >>> partition_of(b"foobar", 4)
    2
    """
    return (murmur2(key) & 0x7FFFFFFF) % count


def murmur2(key: bytes) -> int:
    """The 32-bit hash that Kafka's own producers use, as an unsigned number."""
    length = len(key)
    h = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * _M & _WORD
        k = (k ^ k >> 24) * _M & _WORD
        h = h * _M & _WORD ^ k
    if whole != length:
        h = (h ^ int.from_bytes(key[whole:], "little")) * _M & _WORD
    h = (h ^ h >> 13) * _M & _WORD
    return h ^ h >> 15
