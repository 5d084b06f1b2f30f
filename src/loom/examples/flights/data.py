"""The sample that ships with the example, as the bytes a producer would send. Origin and licence are in README.md here."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from importlib.resources import files

__all__ = ["CORRUPTED_EVERY", "raw_flights"]

#: one record in this many is damaged in transit, as happens
CORRUPTED_EVERY = 2500


def raw_flights(limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each flight, in event order; a few values are cut short or not text at all."""
    sample = files(__package__) / "flights.jsonl.gz"
    with sample.open("rb") as packed, gzip.open(packed) as lines:
        for index, line in enumerate(lines):
            if limit is not None and index >= limit:
                return
            value = line.rstrip(b"\n")
            key = value.partition(b'"carrier":"')[2][:2]
            if index % CORRUPTED_EVERY == CORRUPTED_EVERY - 1:
                value = b"\xff\xfe" + value if (index // CORRUPTED_EVERY) % 2 else value[: len(value) // 2]
            yield key, value
