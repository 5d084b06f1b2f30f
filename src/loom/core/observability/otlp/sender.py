"""Spans that wait, and the thread that sends them. Whoever hands one over never waits.

Runs are encoded by the thread that hands them over: what they are made of is in its caches then, and it frees what it has made.

A collector that is away, slow or refuses loses spans. They are counted, and said: once when it begins, once when it is over.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from loom.core.observability.otlp.delivery import Delivery
from loom.core.observability.otlp.destination import Limits
from loom.core.observability.otlp.encoding import Envelope, SpanEncoder, WrittenRun
from loom.core.observability.otlp.http_client import HttpClient
from loom.core.observability.otlp.losses import Losses
from loom.core.observability.spans import FinishedSpan, SpanBatch, SpanRun

__all__ = ["SpanSender"]

#: about as many spans come of one followed record
_SPANS_OF_RECORD = 5


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
        self._waiting: deque[FinishedSpan | WrittenRun] = deque()
        #: runs and followed records among what waits
        self._count = 0
        self._counting = threading.Lock()
        #: the encoder of runs of each thread
        self._encoders = _Encoders()
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
        if self._has_room_for(1 + len(span.path)):
            self._take((span,), 1)

    def add_all(self, batch: SpanBatch) -> None:
        """Take the spans of a batch; all of them are lost if too many wait.

        Args:
            batch: asked for them here.
        """
        if self._has_room_for(batch.spans):
            write = self._encoders.of_thread.write_run
            self._take([write(one) if isinstance(one, SpanRun) else one for one in batch], len(batch))

    def _has_room_for(self, spans: int) -> bool:
        """Whether they may wait; else they are counted as lost, before anything is done for them."""
        has_room = self._count < self._most
        if not has_room:
            with self._counting:
                self.losses.overflow(spans)
        return has_room

    def _take(self, spans: Sequence[FinishedSpan | WrittenRun], records: int) -> None:
        with self._counting:
            before = self._count
            self._count = after = before + records
            self._waiting.extend(spans)
        if self._thread is None:
            self._start()
        elif before < self._enough <= after:
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
        encoder, pending = SpanEncoder(), self._pending()
        try:
            while not closing.is_set():
                many = wake.wait(self._limits.delay_s)
                wake.clear()
                self._send(encoder, delivery, pending, self._enough if many else 0)
            self._send(encoder, delivery, pending, 0)
        finally:
            delivery.close()

    def _send(
        self, encoder: SpanEncoder, delivery: Delivery, pending: Iterator[FinishedSpan | WrittenRun | None], enough: int
    ) -> None:
        """Send one request, and more while there are enough spans for one."""
        losses, most = self.losses, self._limits.at_once
        while True:
            written: list[bytes | bytearray] = []
            spans = 0
            for one in pending:
                if one is None:
                    break
                if isinstance(one, WrittenRun):
                    written.append(one.body)
                    spans += one.spans
                else:
                    spans += encoder.write(one, written)
                if spans >= most:
                    break
            if not spans:
                return
            refused = delivery.deliver(written)
            if refused is None:
                losses.sent()
            else:
                losses.add(spans, refused)
            if self._count < enough:
                return

    def _pending(self) -> Iterator[FinishedSpan | WrittenRun | None]:
        """What waits, one by one; `None` while there is nothing."""
        waiting = self._waiting
        while True:
            # Another thread may still send what it began before it was to close.
            with self._counting:
                one = waiting.popleft() if waiting else None
                if one is not None:
                    self._count -= one.records if isinstance(one, WrittenRun) else 1
            yield one


class _Encoders(threading.local):
    """An encoder for each thread that hands spans over."""

    def __init__(self) -> None:
        self.of_thread = SpanEncoder()


_senders: weakref.WeakSet[SpanSender] = weakref.WeakSet()


def _after_fork() -> None:
    for sender in list(_senders):
        sender.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
