"""docs/mistakes.md: what each typical mistake prints is what the page says, without a traceback."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from loom.streaming.kafka import EmbeddedBroker
from tests.cli.conftest import Loom
from tests.cli.mistakes import BROKER, all_mistakes
from tests.support.fork_server import ForkServer
from tests.support.mistaken import Mistaken
from tests.support.mistakes_page import PAGE, printed_on, render, writes
from tests.support.running import NOBODY

HERE = {title: mistake for title, mistake in all_mistakes().items() if mistake.beside != "kafka"}
#: these wait for a broker, so they are started first and looked at one by one
STARTED_FIRST = {title for title, mistake in HERE.items() if mistake.command.startswith("loom run")}


class _WebServer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class _TlsPort(socketserver.BaseRequestHandler):
    """What a TLS server does with a client that does not begin with a handshake: an alert, and the end."""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"\x15\x03\x03\x00\x02\x02\x46")


def _listening(stack: ExitStack, handler: type[socketserver.BaseRequestHandler]) -> str:
    server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    stack.callback(server.shutdown)
    return f"127.0.0.1:{server.server_address[1]}"


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Iterator[dict[str, Mistaken]]:
    with ExitStack() as stack:
        broker, empty = stack.enter_context(EmbeddedBroker()), stack.enter_context(EmbeddedBroker())
        for topic in ("orders", "priced", "rejected"):
            broker.create_topic(topic)
        addresses = {
            "": BROKER,
            "nobody": NOBODY,
            "broker": broker.bootstrap,
            "empty broker": empty.bootstrap,
            "web server": _listening(stack, _WebServer),
            "tls": _listening(stack, _TlsPort),
        }
        yield {
            title: Mistaken(
                HERE[title],
                tmp_path_factory.mktemp("shop"),
                fork_server,
                dict(Loom.environment()),
                addresses[HERE[title].beside],
            )
            for title in STARTED_FIRST
        }


@pytest.mark.parametrize("title", HERE)
def test_a_mistake_prints_what_the_page_says(
    title: str, under_way: dict[str, Mistaken], tmp_path: Path, fork_server: ForkServer
) -> None:
    made = under_way.get(title) or Mistaken(HERE[title], tmp_path, fork_server, dict(Loom.environment()))
    made.check()


def test_the_page_is_that_of_the_table() -> None:
    if writes():
        PAGE.write_text(render(printed_on(PAGE.read_text())))
    page = PAGE.read_text()
    assert page == render(printed_on(page))
    assert list(printed_on(page)) == list(all_mistakes())
    assert len(all_mistakes()) >= 30
