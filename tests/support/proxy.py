"""A TCP proxy in front of a broker that can cut, silence, deafen or slow the connections through it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

__all__ = ["Proxy"]

_CHUNK = 65_536


class Proxy:
    """Listens on `port` of the loopback interface and forwards to `target`. Ended by `with`.

    `throttle` bounds what clients may send, in bytes per second over all connections.
    """

    def __init__(self, port: int, target: int, *, throttle: float | None = None) -> None:
        self.port = port
        self._target = target
        self._throttle = throttle
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._forwards = threading.Event()
        self._forwards.set()
        self._answers = threading.Event()
        self._answers.set()
        self._listening: socket.socket | None = None
        self._free_at = 0.0

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._throttle = None
        self.cut()
        self._forwards.set()
        self._answers.set()

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        listening, self._listening = self._listening, None
        if listening is not None:
            # Else the thread in accept() would hold the port open.
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        self._reset()

    def silence(self) -> None:
        """Forward nothing in either direction; connections stay open, and what is sent waits."""
        self._forwards.clear()

    def deafen(self) -> None:
        """Forward what clients ask, and keep back every answer."""
        self._answers.clear()

    def mend(self) -> None:
        """Let everything pass again; connections whose answers were kept back are reset instead."""
        if not self._answers.is_set():
            self._reset()
            self._answers.set()
        self._forwards.set()
        if self._listening is None:
            self._listen()

    def _listen(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(64)
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 2)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            pair = client, server
            with self._lock:
                self._pairs.add(pair)
            for one in pair:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(pair, client, server), daemon=True).start()
            threading.Thread(target=self._pump, args=(pair, server, client), daemon=True).start()

    def _pump(self, pair: tuple[socket.socket, socket.socket], source: socket.socket, target: socket.socket) -> None:
        asks = source is pair[0]
        chunk = _CHUNK if self._throttle is None else max(1, min(_CHUNK, int(self._throttle / 20)))
        try:
            while data := source.recv(chunk):
                self._forwards.wait()
                if not asks:
                    self._answers.wait()
                elif self._throttle is not None:
                    self._take_turn(len(data))
                target.sendall(data)
        except OSError:
            pass
        self._end(pair)

    def _take_turn(self, size: int) -> None:
        """Wait until the bytes before these have had their time."""
        throttle = self._throttle
        if throttle is None:
            return
        with self._lock:
            turn = max(self._free_at, time.monotonic())
            self._free_at = turn + size / throttle
        time.sleep(max(0.0, turn - time.monotonic()))

    def _reset(self) -> None:
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    # Closing with a linger of zero sends a reset and not an orderly end.
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
