"""What the Kafka clients of a run have sent and received, as they report it themselves; it costs the flow nothing per record.

The client calls `note` from inside its own calls. The text is kept as it is and read only when somebody asks.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import msgspec

__all__ = ["ClientStatistics", "Traffic"]

#: the name of the client, which is unique in the process, at the beginning of the text
_NAME = re.compile(r'"name":\s*"([^"]*)"')


class _Partition(msgspec.Struct):
    txbytes: int = 0
    rxbytes: int = 0


class _Topic(msgspec.Struct):
    partitions: dict[str, _Partition] = {}


class _Statistics(msgspec.Struct):
    topics: dict[str, _Topic] = {}


class Traffic(NamedTuple):
    """Bytes by topic."""

    received: Counter[str]
    sent: Counter[str]


class ClientStatistics:
    """The last report of each client. Safe to use from any thread."""

    def __init__(self, interval_ms: int) -> None:
        #: how often clients report, in milliseconds
        self.interval_ms = interval_ms
        self._last: dict[str, str] = {}
        self._decoder = msgspec.json.Decoder(_Statistics)

    def note(self, text: str) -> None:
        """The statistics callback of a client."""
        found = _NAME.search(text, 0, 300)
        self._last[found[1] if found is not None else ""] = text

    def traffic(self) -> Traffic:
        """Bytes by topic, of all clients together, closed ones included."""
        received: Counter[str] = Counter()
        sent: Counter[str] = Counter()
        for text in list(self._last.values()):
            try:
                statistics = self._decoder.decode(text)
            except msgspec.DecodeError:
                continue
            for topic, found in statistics.topics.items():
                for partition in found.partitions.values():
                    if partition.rxbytes:
                        received[topic] += partition.rxbytes
                    if partition.txbytes:
                        sent[topic] += partition.txbytes
        return Traffic(received, sent)
