"""A collector that answers as a test says, and keeps what it was sent."""

from __future__ import annotations

import gzip
import ssl
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.waiting import LONG_S

__all__ = ["ScriptedCollector"]

_OPENED = {"gzip": gzip.decompress, "deflate": zlib.decompress}


class ScriptedCollector:
    """Answers requests with the statuses of `answers`, each with its headers, then with 200.

    `hold` keeps every answer back while it is set.
    """

    def __init__(self, *answers: tuple[int, Mapping[str, str]], context: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.connections: set[Any] = set()
        self.go = threading.Event()
        self.go.set()
        #: set whenever a request has come
        self.came = threading.Semaphore(0)
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                collector._take(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.endpoint = f"http{'' if context is None else 's'}://127.0.0.1:{self._server.server_port}"

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        body = _OPENED.get(request.headers.get("Content-Encoding", ""), bytes)(body)
        self.paths.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.connections.add(request.client_address)
        self.requests.append(ExportTraceServiceRequest.FromString(body))
        self.came.release()
        self.go.wait(LONG_S)
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        request.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if headers.get("Connection") == "close":
            request.close_connection = True

    @property
    def names(self) -> list[str]:
        """The names of the spans that were sent, those of requests that were refused included."""
        return [
            span.name
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @contextmanager
    def listening(self) -> Iterator[ScriptedCollector]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.go.set()
            self._server.shutdown()
            thread.join(LONG_S)
            self._server.server_close()
