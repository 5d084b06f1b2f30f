"""The proxy that stands between a flow and its broker in the tests."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.apache_kafka import free_port
from tests.support.proxy import Proxy
from tests.support.waiting import LONG_S, until


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65_536):
            self.server.heard += data  # type: ignore[attr-defined]
            self.request.sendall(data)


@pytest.fixture
def server() -> Iterator[socketserver.ThreadingTCPServer]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as running:
        running.daemon_threads = True
        running.heard = b""  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: socketserver.ThreadingTCPServer) -> Iterator[Proxy]:
    with Proxy(free_port(), server.server_address[1]) as running:
        yield running


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), LONG_S)


def asked(client: socket.socket, question: bytes) -> bytes:
    client.sendall(question)
    return client.recv(100)


def test_what_is_sent_arrives_and_is_answered(proxy: Proxy) -> None:
    with closing(connect(proxy)) as client:
        assert asked(client, b"hello") == b"hello"


def test_a_cut_ends_connections_and_refuses_new_ones_until_it_is_mended(proxy: Proxy) -> None:
    with closing(connect(proxy)) as client:
        assert asked(client, b"hello") == b"hello"
        proxy.cut()
        with pytest.raises((ConnectionError, AssertionError)):
            assert client.recv(100)
    with pytest.raises(ConnectionError):
        connect(proxy)
    proxy.mend()
    with closing(connect(proxy)) as client:
        assert asked(client, b"again") == b"again"


def test_silence_keeps_what_is_sent_until_it_is_mended(proxy: Proxy, server: socketserver.ThreadingTCPServer) -> None:
    with closing(connect(proxy)) as client:
        assert asked(client, b"1") == b"1"
        proxy.silence()
        client.sendall(b"2")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(100)
        assert server.heard == b"1"  # type: ignore[attr-defined]
        proxy.mend()
        client.settimeout(LONG_S)
        assert client.recv(100) == b"2"


def test_answers_that_are_kept_back_never_arrive_though_the_question_does(
    proxy: Proxy, server: socketserver.ThreadingTCPServer
) -> None:
    with closing(connect(proxy)) as client:
        assert asked(client, b"1") == b"1"
        proxy.deafen()
        client.sendall(b"2")
        until(lambda: server.heard == b"12")  # type: ignore[attr-defined]
        proxy.mend()
        with pytest.raises((ConnectionError, AssertionError)):
            assert client.recv(100)


def test_a_throttle_bounds_what_is_sent(server: socketserver.ThreadingTCPServer) -> None:
    with (
        Proxy(free_port(), server.server_address[1], throttle=20_000) as proxy,
        closing(connect(proxy)) as client,
    ):
        began = time.monotonic()
        client.sendall(b"x" * 10_000)
        received = 0
        while received < 10_000:
            received += len(client.recv(65_536))
        assert time.monotonic() - began > 0.4
