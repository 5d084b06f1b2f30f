"""One connection to a collector, kept open between requests. Used by the thread that sends spans.

Not `requests` or `urllib3`: to load either takes more CPU than to send the spans of some minutes.
"""

from __future__ import annotations

import base64
import http.client
import os
import socket
import ssl
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from loom.core.errors import LoomError
from loom.core.observability.otlp.destination import Destination

__all__ = ["Answer", "CollectorAddressError", "HttpClient"]

#: what is read of an answer; nothing in it is used
_MOST_READ = 1 << 20
#: Bytes that the system keeps of a request, as far as its limits go. A request that fits is handed over at once; each part of a
#: longer one makes this thread wait for the interpreter's lock, and whoever holds it let go of it.
_SEND_BUFFER = 1 << 20
#: Pieces of a request that are handed over as they are; the system takes 1,024 (`IOV_MAX` of Linux).
_MOST_PIECES = 500
#: the window of zlib, and a header and trailer of gzip around
_GZIP = 16 + zlib.MAX_WBITS
#: what is raised where the other side has closed a connection that was kept open
_GONE = (ConnectionError, http.client.BadStatusLine, http.client.CannotSendRequest)


class CollectorAddressError(LoomError):
    """The address of a collector cannot be used."""


class Answer(NamedTuple):
    """What a collector says to a request."""

    status: int
    retry_after: str | None


class HttpClient:
    """Posts to one address.

    Args:
        destination: where to, and how.

    Raises:
        CollectorAddressError: if the address has no host, or another scheme than http and https.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._url = _checked(destination.url)
        self._headers = {**destination.headers}
        if destination.compression != "none":
            self._headers["content-encoding"] = destination.compression
        if self._url.username is not None:
            self._headers.setdefault("authorization", _basic(self._url))
        self._connection: http.client.HTTPConnection | None = None
        self._target = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")

    def post(self, body: Sequence[bytes | bytearray]) -> Answer:
        """Send one request. A connection that has been closed since the last one is opened again.

        Args:
            body: pieces that follow one another, as they are without compression.

        Raises:
            OSError: if the collector cannot be reached or does not answer in time.
            http.client.HTTPException: if what it answers is not HTTP.
        """
        body = self._compressed(body)
        reused = self._connection is not None
        try:
            try:
                return self._post(body)
            except _GONE:
                if not reused:
                    raise
                self.close()
                return self._post(body)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection. Idempotent; the next request opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _post(self, body: Sequence[bytes | bytearray]) -> Answer:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._open()
        if connection.sock is None:
            _connect(connection)
        connection.request("POST", self._target, body, {**self._headers, "content-length": str(sum(map(len, body)))})
        if isinstance(connection, _AtOnce):
            connection.flush()
        with connection.getresponse() as response:
            response.read(_MOST_READ)
            # Only the next read finds the end of an answer in chunks.
            if not response.isclosed() and response.read(1):
                self.close()
            return Answer(response.status, response.headers.get("Retry-After"))

    def _compressed(self, body: Sequence[bytes | bytearray]) -> Sequence[bytes | bytearray]:
        if self._destination.compression == "gzip":
            return [zlib.compress(b"".join(body), 6, wbits=_GZIP)]
        if self._destination.compression == "deflate":
            return [zlib.compress(b"".join(body))]
        # TLS would make records of its own of each piece.
        return body if self._url.scheme == "http" and len(body) <= _MOST_PIECES else [b"".join(body)]

    def _open(self) -> http.client.HTTPConnection:
        url, timeout = self._url, self._destination.timeout_s
        host, port = url.hostname or "", url.port
        proxy = _proxy_of(url)
        if url.scheme == "http":
            if proxy is None:
                return _AtOnce(host, port, timeout)
            self._target = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
            if proxy.username is not None:
                self._headers["proxy-authorization"] = _basic(proxy)
            return _AtOnce(proxy.hostname or "", proxy.port or 80, timeout)
        if proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._trust())
        through = http.client.HTTPSConnection(
            proxy.hostname or "", proxy.port or 80, timeout=timeout, context=self._trust()
        )
        through.set_tunnel(host, port, {"proxy-authorization": _basic(proxy)} if proxy.username else None)
        return through

    def _trust(self) -> ssl.SSLContext:
        destination = self._destination
        context = ssl.create_default_context(cafile=destination.ca_file)
        if destination.client_certificate is not None:
            context.load_cert_chain(destination.client_certificate, destination.client_key)
        return context


def _connect(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


class _AtOnce(http.client.HTTPConnection):
    """Hands the system all pieces of a request at once, by `flush`, and copies none of them.

    After each call of the system this thread waits for the interpreter's lock, and whoever holds that is disturbed meanwhile.
    """

    def __init__(self, host: str, port: int | None, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._pieces: list[Any] = []

    def send(self, data: Any) -> None:
        """Keep a piece of a request."""
        self._pieces.append(data)

    def flush(self) -> None:
        """Send what is kept."""
        pieces, self._pieces = self._pieces, []
        while pieces:
            sent = self.sock.sendmsg(pieces)
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if sent:
                pieces[0] = memoryview(pieces[0])[sent:]


def _checked(address: str) -> SplitResult:
    with suppress(ValueError):  # a port that is no number
        url = urlsplit(address)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return url
    raise CollectorAddressError(f"{address!r} is no address of a collector; expected http://HOST:PORT")


def _proxy_of(url: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for an address."""
    if not any(name.lower() == f"{url.scheme}_proxy" for name in os.environ):
        return None
    # Rarely needed, and as large as all else here together.
    from urllib.request import getproxies, proxy_bypass

    named = getproxies().get(url.scheme)
    if named is None or proxy_bypass(url.hostname or ""):
        return None
    return _checked(named if "://" in named else f"http://{named}")


def _basic(url: SplitResult) -> str:
    named = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return f"Basic {base64.b64encode(named.encode()).decode()}"
