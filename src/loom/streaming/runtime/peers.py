"""The other processes of an engine's cluster: told of a stop, waited for at the start, missed when they are gone.

What passes between the processes of a cluster is the engine's own traffic and a `PeerStop`; no record does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.core.thread_beside import thread_beside
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.run_errors import PeerLostError, PeersMissingError, StoppedBeforeStartError
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stop import StopSignal

__all__ = ["PeerStop", "awaiting_peers", "peer_lost", "raise_peer_stop"]

_log = get_logger(__name__)

#: seconds between two looks at a start that waits for its peers, and between two lines about it
_LOOK, _SAY = 0.1, 10.0
#: seconds that a start has for noticing a stop itself
_GRACE = 1.0


class PeerStop(LoomFrozenStruct):
    """A process of a cluster stops, so all do: none of them returns before the sources of all have ended."""

    #: the process that stops
    index: int
    reason: str
    #: it is to be started again, and the others with it
    restart: bool

    def receive(self, stop: StopSignal) -> None:
        """Stop this process as well. Called on the sink's thread."""
        if not stop.requested:
            stop.peer_restarts = self.restart
            stop.request(f"process {self.index} of the cluster stops: {self.reason}", restart=self.restart)


def peer_lost(layout: Layout) -> PeerLostError:
    """What the engine's own failure means where nothing of ours has failed."""
    return PeerLostError(
        f"another process of the cluster has ended, or its connection broke; this is {layout}. A cluster is restarted as a "
        "whole: restart all its processes. What is not committed is read again"
    )


def raise_peer_stop(stop: StopSignal) -> None:
    """A run has ended in order. Raise `PeerLostError` where that was for a process that is started again."""
    if stop.peer_restarts:
        raise PeerLostError(
            f"{stop.reason}. This one has ended in order: restart all processes of the cluster together"
        )


@contextmanager
def awaiting_peers(layout: Layout, state: RunState, timeout_s: float) -> Iterator[None]:
    """While the engine waits for the other processes it can neither stop nor give up: a thread of ours ends the process then.

    Does nothing outside a cluster. Nothing has been read yet, so there is nothing to finish.
    """
    if not layout.is_cluster:
        yield
        return
    over = threading.Event()
    with thread_beside("loom-peers", lambda: _watch(layout, state, timeout_s, over), over):
        yield


def _watch(layout: Layout, state: RunState, timeout_s: float, over: threading.Event) -> None:
    began = said_at = time.monotonic()
    stop, others = state.stop, [at for i, at in enumerate(layout.addresses) if i != layout.index]
    while not stop.running and not over.wait(_LOOK):
        now = time.monotonic()
        if stop.requested:
            if over.wait(_GRACE) or stop.running:
                return
            stop.end_now(StoppedBeforeStartError(f"stopped ({stop.reason}) while waiting for the peers {others}"))
            return
        if now - began >= timeout_s:
            stop.end_now(
                PeersMissingError(
                    f"the cluster was not complete within {timeout_s:g} s (kafka.consumer.start_timeout_ms): this is {layout} "
                    f"at {layout.addresses[layout.index]}, and it waits for {', '.join(others)}. Start all processes together, "
                    "with the same addresses in the same order"
                )
            )
            return
        if now - said_at >= _SAY:
            said_at = now
            _log.warning("cluster_incomplete", waiting_for=others, seconds=round(now - began))
