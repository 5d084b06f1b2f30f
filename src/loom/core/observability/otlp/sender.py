"""Spans that wait, and the thread that sends them. Whoever hands one over never waits.

A collector that is away, slow or refuses loses spans. They are counted, and said: once when it begins, once when it is over.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

from loom.core.observability.otlp.delivery import Delivery
from loom.core.observability.otlp.destination import Limits
from loom.core.observability.otlp.encoding import Envelope, SpanEncoder
from loom.core.observability.otlp.http_client import HttpClient
from loom.core.observability.otlp.losses import Losses
from loom.core.observability.spans import FinishedSpan

__all__ = ["SpanSender"]

#: about as many spans come of one followed record
_SPANS_OF_RECORD = 4


class SpanSender:
    """Keeps spans until its thread has sent them. The thread starts with the first span, and ends with `close`.

    Args:
        connect: makes the client, on the thread.
        envelope: makes what is around the spans, on the thread.
        limits: how many spans wait for how long.
    """

    def __init__(self, connect: Callable[[], HttpClient], envelope: Callable[[], Envelope], limits: Limits) -> None:
        self._connect = connect
        self._envelope = envelope
        self._limits = limits
        self._most = limits.waiting
        #: that many that wait are sent without further delay
        self._enough = max(1, min(limits.at_once // _SPANS_OF_RECORD, limits.waiting // 2))
        self.losses = Losses()
        self._forget()
        _senders.add(self)

    def _forget(self) -> None:
        self._waiting: deque[FinishedSpan] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake, self._closing = threading.Event(), threading.Event()

    def after_fork(self) -> None:
        """In a child process: the thread and what waits are the parent's."""
        self._forget()

    def add(self, span: FinishedSpan) -> None:
        """Take a span; it is lost if too many wait.

        Args:
            span: one that is over.
        """
        waiting = self._waiting
        count = len(waiting)
        if count >= self._most:
            self.losses.overflow(1 + len(span.laps))
            return
        waiting.append(span)
        if self._thread is None:
            self._start()
        elif count == self._enough:
            self._wake.set()

    def close(self, timeout_s: float) -> bool:
        """Send what waits, with one attempt for each request. A later span starts another thread.

        Args:
            timeout_s: the longest wait for it, in seconds.

        Returns:
            Whether the thread has ended in that time.
        """
        with self._lock:
            thread, closing, wake = self._thread, self._closing, self._wake
            self._thread, self._closing, self._wake = None, threading.Event(), threading.Event()
        if thread is None:
            return True
        closing.set()
        wake.set()
        thread.join(timeout_s)
        return not thread.is_alive()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                closing, wake = self._closing, self._wake
                thread = threading.Thread(target=self._run, args=(closing, wake), name="loom-spans", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self, closing: threading.Event, wake: threading.Event) -> None:
        delivery = Delivery(self._connect, self._envelope, closing)
        encoder = SpanEncoder()
        try:
            while not closing.is_set():
                wake.wait(self._limits.delay_s)
                wake.clear()
                self._send(encoder, delivery, self._enough)
            self._send(encoder, delivery, 1)
        finally:
            delivery.close()

    def _send(self, encoder: SpanEncoder, delivery: Delivery, enough: int) -> None:
        """Send one request, and more while there are enough spans for one."""
        waiting, losses = self._waiting, self.losses
        first = True
        while waiting and (first or len(waiting) >= enough):
            first = False
            written: list[bytes] = []
            spans = 0
            while waiting and spans < self._limits.at_once:
                # Another thread may still send what it began before it was to close.
                try:
                    span = waiting.popleft()
                except IndexError:
                    break
                spans += encoder.write(span, written)
            refused = delivery.deliver(written)
            if refused is None:
                losses.sent()
            else:
                losses.add(spans, refused)


_senders: weakref.WeakSet[SpanSender] = weakref.WeakSet()


def _after_fork() -> None:
    for sender in list(_senders):
        sender.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
