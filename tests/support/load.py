"""Numbers that arrive at a rate until somebody says that it is enough; outlives whatever becomes of the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from confluent_kafka import KafkaError, Message, Producer

__all__ = ["Load"]

#: seconds for one record, and for the last one in the end
_PATIENCE = 300.0
#: what is written at a time; between two, the clock and the end are looked at
_SLICE = 0.02


class Load:
    """Number n goes to partition `n % partitions`. `written` is known once `finish()` has returned."""

    def __init__(
        self, bootstrap: str, topic: str, *, rate: float, partitions: int, value: Callable[[int], bytes] | None = None
    ) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": int(_PATIENCE * 1000),
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._topic = topic
        self._rate = rate
        self._partitions = partitions
        self._value = value or (lambda n: b'{"n":%d}' % n)
        self._enough = threading.Event()
        self._failures: list[str] = []
        self._thread = threading.Thread(target=self._write, daemon=True)
        self.written = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def run_on(self, seconds: float) -> None:
        """Let so much time pass under load."""
        time.sleep(seconds)
        assert self._thread.is_alive(), self._failures

    def finish(self) -> int:
        """Stop and return how many records there are, once the broker has acknowledged each."""
        self._enough.set()
        self._thread.join()
        left = self._producer.flush(_PATIENCE)
        if self._failures or left:
            raise RuntimeError(f"{len(self._failures)} failed, {left} without an answer: {self._failures[:3]}")
        return self.written

    def _write(self) -> None:
        began = time.monotonic()
        while not self._enough.is_set():
            due = int((time.monotonic() - began) * self._rate)
            while self.written < due:
                number = self.written
                self._producer.produce(
                    self._topic,
                    self._value(number),
                    b"%d" % number,
                    number % self._partitions,
                    on_delivery=self._delivered,
                )
                self.written += 1
            self._producer.poll(_SLICE)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(f"{message.topic()}[{message.partition()}]: {error}")
