"""Brings requests to a collector, and tries again where that helps. Used by the thread that sends spans."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException

from loom.core.observability.otlp.encoding import Envelope
from loom.core.observability.otlp.http_client import Answer, HttpClient

__all__ = ["Delivery"]

#: answers after which OTLP wants a request to be sent again
_RETRYABLE = frozenset({429, 502, 503, 504})
#: for one request; and the seconds that they may take together, with the waits between them
_MOST_ATTEMPTS, _LONGEST = 6, 60.0
_FIRST_WAIT = 0.5


class Delivery:
    """Sends requests one after the other.

    Args:
        connect: makes the client, when it is first needed.
        envelope: makes what is around the spans, as late.
        closing: once it is set, nothing is tried again.
    """

    def __init__(
        self, connect: Callable[[], HttpClient], envelope: Callable[[], Envelope], closing: threading.Event
    ) -> None:
        self._connect = connect
        self._make_envelope = envelope
        self._closing = closing
        self._client: HttpClient | None = None
        self._envelope: Envelope | None = None

    def deliver(self, spans: Iterable[bytes | bytearray]) -> str | None:
        """Send one request, several times if it is worth it.

        Args:
            spans: what an encoder has written.

        Returns:
            Why it was not taken; `None` if it was.
        """
        try:
            if self._envelope is None:
                self._envelope = self._make_envelope()
            if self._client is None:
                self._client = self._connect()
            return self._attempts(self._client, self._envelope.around(spans))
        except Exception as error:  # noqa: BLE001  the thread goes on; what it could not send is counted and said
            return f"{type(error).__name__}: {error}"

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()

    def _attempts(self, client: HttpClient, body: Sequence[bytes | bytearray]) -> str | None:
        deadline, wait = time.monotonic() + _LONGEST, _FIRST_WAIT
        for left in reversed(range(_MOST_ATTEMPTS)):
            reason, pause = _attempt(client, body)
            if reason is None:
                return None
            if pause is None or not left:
                return reason
            pause = pause or wait * random.uniform(0.8, 1.2)
            if time.monotonic() + pause > deadline or self._closing.wait(pause):
                return reason
            wait *= 2
        return None


def _attempt(client: HttpClient, body: Sequence[bytes | bytearray]) -> tuple[str | None, float | None]:
    """Why a request was not taken, and the seconds after which it may be sent again: 0 if nobody says, `None` for never."""
    try:
        answer = client.post(body)
    except (OSError, HTTPException) as error:
        return f"{type(error).__name__}: {error}", 0.0
    if 200 <= answer.status < 300:
        return None, None
    return f"HTTP {answer.status}", _pause(answer) if answer.status in _RETRYABLE else None


def _pause(answer: Answer) -> float:
    """The seconds that `Retry-After` asks for, in any of its two forms; 0 without."""
    asked = (answer.retry_after or "").strip()
    if asked.isdecimal():
        return float(asked[:9])
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return 0.0
    return max(0.0, until.replace(tzinfo=until.tzinfo or UTC).timestamp() - time.time())
