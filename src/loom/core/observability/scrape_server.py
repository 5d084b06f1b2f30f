"""A small HTTP server for metrics, health, readiness and the live page, on threads of its own.

Started by the observer that serves metrics. However many clients come, however slow they are, a run does not notice.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from loom.core.loopback import is_address, is_loopback
from loom.core.observability.metrics import Check, Page

__all__ = ["ScrapeServer"]

#: seconds that a client may take to send its request or to receive its answer
_PATIENCE = 10.0
#: requests that are answered at the same time; more are sent away
_MOST_AT_ONCE = 8

#: with every answer: a browser loads nothing from elsewhere, runs no script but ours, and shows the page in no other's frame
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", _POLICY),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)

#: status, content type and content
Answer = tuple[HTTPStatus, str, bytes]


class ScrapeServer:
    """Serves one process.

    Args:
        bind_address: an address of this machine.
        port: 0 for any free one.
        path: where the metrics are.
        scrape: makes the metrics for a value of the header `Accept`.
        health: whether the process is alive and at work.
        ready: whether it can do its work now.
        pages: what else there is, by path; asked for each request.

    Raises:
        OSError: if the port cannot be used.
    """

    def __init__(
        self,
        bind_address: str,
        port: int,
        path: str,
        scrape: Callable[[str], tuple[str, bytes]],
        health: Callable[[], Sequence[Check]],
        ready: Callable[[], Sequence[Check]],
        pages: Callable[[], Mapping[str, Page]] = dict,
    ) -> None:
        def metrics(accept: str) -> Answer:
            content_type, content = scrape(accept)
            return HTTPStatus.OK, content_type, content

        own: dict[str, Callable[[str], Answer]] = {
            path: metrics,
            "/healthz": lambda _: _checked(health()),
            "/readyz": lambda _: _checked(ready()),
        }

        def answers(host: str) -> Mapping[str, Callable[[str], Answer]]:
            # A page of somebody else's whose name leads here must not read what is for this machine alone.
            show = pages() if _is_named(host) or not is_loopback(bind_address) else {}
            return {**{path: partial(_answered, page) for path, page in show.items()}, **own}

        self._server = _Server(bind_address, port, answers)
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it listens, as a URL without a path."""
        host, port = self._server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{shown}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="loom-metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Answer no longer, and free the port."""
        if self._thread is not None:
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # An answer in progress does not hold up the end of a run.
    block_on_close = False

    def __init__(
        self, bind_address: str, port: int, answers: Callable[[str], Mapping[str, Callable[[str], Answer]]]
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in bind_address else socket.AF_INET
        self.answers = answers
        self.room = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__((bind_address, port), _Handler)

    def server_bind(self) -> None:
        # The parent class would look up the name of the host, which may take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    server_version = "loom"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""

    def _answer(self, *, body: bool) -> None:
        answers = self.server.answers(self.headers.get("Host", ""))
        page = answers.get(self.path.partition("?")[0])
        if page is None:
            known = ", ".join(answers)
            status, content_type, content = HTTPStatus.NOT_FOUND, "text/plain", f"there is {known}\n".encode()
        else:
            try:
                status, content_type, content = page(self.headers.get("Accept", ""))
            except Exception as error:  # noqa: BLE001 - what is told may be at fault, and the next request is another's
                status, content_type = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain"
                content = f"cannot be told: {type(error).__name__}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in _HEADERS:
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _is_named(host: str) -> bool:
    """Whether a header `Host` names this machine for itself: by an address, or as `localhost`."""
    try:
        name = urlsplit(f"//{host}").hostname or "localhost"
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or is_address(name)


def _answered(page: Page, _accept: str) -> Answer:
    return HTTPStatus.OK, page.content_type, page.content()


def _checked(checks: Sequence[Check]) -> Answer:
    ok = all(check.ok for check in checks)
    found = {"ok": ok, "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks]}
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(found).encode() + b"\n"
