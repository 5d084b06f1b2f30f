"""An event loop in a thread of its own, for synchronous code that has to run coroutines.

Created by the code that builds a plan with async scopes, used by stages and sinks, closed by its creator. anyio is
imported when the first coroutine is run.
"""

from __future__ import annotations

import enum
import importlib.util
import inspect
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from loom.core.errors import LoomError
from loom.core.logger import get_logger

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = ["AsyncBridge", "AsyncBridgeClosedError", "AsyncBridgeError"]

T = TypeVar("T")

_log = get_logger("loom.core.async_bridge")

#: how many coroutines a warning names
_NAMED = 10


class AsyncBridgeError(LoomError):
    """The bridge cannot do what it was asked: a backend is missing, or it was called from its own loop."""


class AsyncBridgeClosedError(AsyncBridgeError):
    """The bridge was shut down before the coroutine had run to its end."""


class _State(enum.Enum):
    NEW = "new"
    RUNNING = "running"
    CLOSED = "closed"


class AsyncBridge:
    """Runs coroutines from any thread, all in one event loop.

    The loop's thread starts with the first `run` and is a daemon, so a bridge that was abandoned never keeps a
    process alive.

    >>> async def double(number: int) -> int:
    ...     return number * 2
    >>> bridge = AsyncBridge()
    >>> bridge.run(double(21))
    42
    >>> bridge.shutdown()
    True

    Args:
        backend: the event loop to use.
        use_uvloop: run asyncio on uvloop; without meaning for trio.

    Raises:
        AsyncBridgeError: if trio or uvloop is configured and not installed.
        ValueError: when the backend is neither asyncio nor trio.
    """

    def __init__(self, backend: Literal["asyncio", "trio"] = "asyncio", *, use_uvloop: bool = False) -> None:
        if backend not in ("asyncio", "trio"):
            raise ValueError(f"the async backend {backend!r} is neither 'asyncio' nor 'trio'")
        self._backend = backend
        self._options: dict[str, Any] = {}
        if backend == "trio":
            _require("trio")
        elif use_uvloop:
            _require("uvloop")
            self._options["use_uvloop"] = True
        #: Guards the fields below, and is notified when a call ends.
        self._changed = threading.Condition()
        self._state = _State.NEW
        #: what runs, by name
        self._running: Counter[str] = Counter()
        self._soon: Callable[[Callable[[], object]], object] | None = None
        #: ends the loop; to be called in it
        self._stop: Callable[[], object] | None = None
        self._portal: BlockingPortal | None = None
        self._thread: threading.Thread | None = None

    def run(self, coro: Coroutine[Any, Any, T] | Callable[[], Awaitable[T]], timeout: float | None = None) -> T:
        """Run a coroutine to its end and return its value, or raise what it raises.

        At the limit the coroutine is cancelled, which it may or may not heed; the caller is released in
        either case. Code that blocks the loop itself holds up everybody.

        Args:
            coro: a coroutine, or a callable without arguments that makes one.
            timeout: seconds until it is cancelled; `None` means no limit.

        Raises:
            TimeoutError: when the limit has passed.
            AsyncBridgeClosedError: when the bridge is shut down, before or meanwhile.
            AsyncBridgeError: when called from the bridge's own loop, which would wait for itself forever.
        """
        name = getattr(coro, "__qualname__", type(coro).__name__)
        try:
            portal = self._enter(name)
        except BaseException:
            if inspect.iscoroutine(coro):
                coro.close()  # else Python warns that the coroutine was never awaited
            raise
        try:
            return _outcome(portal, coro, timeout)
        finally:
            self._leave(name)

    def start(self, work: Callable[[], Awaitable[T]], *, name: str) -> Future[T]:
        """Start a coroutine and return at once.

        Args:
            work: makes the coroutine.
            name: what it is called in a warning that it still runs.

        Returns:
            Its result, once it has one.

        Raises:
            AsyncBridgeClosedError: when the bridge is shut down.
        """
        portal = self._enter(name)

        async def awaited() -> T:
            return await work()

        try:
            future = portal.start_task_soon(awaited, name=name)
        except RuntimeError as error:
            self._leave(name)
            raise AsyncBridgeClosedError("the event loop of this async bridge has ended") from error
        future.add_done_callback(lambda _: self._leave(name))
        return future

    def soon(self, callback: Callable[[], object]) -> None:
        """Call a plain function in the loop, without waiting for it. It must not raise.

        Args:
            callback: takes no argument.

        Raises:
            AsyncBridgeClosedError: when the loop has not been started, or has ended.
        """
        soon = self._soon
        if soon is None:
            raise AsyncBridgeClosedError("the event loop of this async bridge has not been started")
        try:
            soon(callback)
        except RuntimeError as error:
            raise AsyncBridgeClosedError("the event loop of this async bridge has ended") from error

    def shutdown(self, timeout: float | None = None) -> bool:
        """Take no more coroutines, wait for those that run, and end the loop. May be called again.

        Args:
            timeout: seconds for all of it; `None` means no limit. After it everything that still runs is cancelled and the
                loop's thread is left to itself, with a warning.

        Returns:
            Whether everything has ended.

        Raises:
            AsyncBridgeError: when called from the bridge's own loop.
        """
        deadline = None if timeout is None else monotonic() + timeout
        with self._changed:
            self._refuse_own_loop()
            self._state = _State.CLOSED
            self._changed.wait_for(lambda: not self._running, _left(deadline))
            stop, thread, unfinished = self._stop, self._thread, list(self._running.elements())
        if stop is None or thread is None or not thread.is_alive():
            return True
        # Without waiting for it: a coroutine that blocks the loop would hold this call up as well.
        with suppress(AsyncBridgeClosedError):  # it has ended by itself
            self.soon(stop)
        thread.join(_left(deadline))
        if not thread.is_alive() and not unfinished:
            return True
        _log.warning(
            "async_bridge_abandoned", running_calls=len(unfinished), names=unfinished[:_NAMED], timeout_s=timeout
        )
        return False

    def _leave(self, name: str) -> None:
        with self._changed:
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]
            self._changed.notify_all()

    def _enter(self, name: str) -> BlockingPortal:
        with self._changed:
            self._refuse_own_loop()
            if self._state is _State.CLOSED:
                raise AsyncBridgeClosedError("this async bridge is shut down")
            if self._portal is None:
                self._start()
                self._state = _State.RUNNING
            assert self._portal is not None
            self._running[name] += 1
            return self._portal

    def _start(self) -> None:
        started: Future[_Loop] = Future()
        self._thread = threading.Thread(
            target=_serve, args=(self._backend, self._options, started), daemon=True, name="loom-async-bridge"
        )
        self._thread.start()
        self._portal, self._soon, self._stop = started.result()

    def _refuse_own_loop(self) -> None:
        if self._thread is not None and self._thread.ident == threading.get_ident():
            raise AsyncBridgeError("called from the bridge's own event loop, where it would wait for itself; use await")


class _Loop(NamedTuple):
    """A loop that has been started."""

    portal: BlockingPortal
    #: calls a function in it
    soon: Callable[[Callable[[], object]], object]
    #: ends it; to be called in it
    stop: Callable[[], object]


def _serve(backend: str, options: dict[str, Any], started: Future[_Loop]) -> None:
    """The loop's thread: open a portal, hand it over, and serve it until it is stopped."""
    import anyio
    from anyio.from_thread import BlockingPortal

    async def serve() -> None:
        async with BlockingPortal() as portal:
            stopping = anyio.Event()
            started.set_result(_Loop(portal, _caller_of(backend), stopping.set))
            await stopping.wait()
            # What still runs now is past the limit, or was left running by a coroutine that has returned.
            await portal.stop(cancel_remaining=True)

    try:
        anyio.run(serve, backend=backend, backend_options=options)
    except BaseException as error:  # noqa: BLE001  passed to the thread that waits for the start
        if not started.done():
            started.set_exception(error)
        elif isinstance(error, Exception):
            _log.exception("async_bridge_failed")


def _caller_of(backend: str) -> Callable[[Callable[[], object]], object]:
    """What calls a function in this loop from another thread. anyio's own way waits until that is done."""
    if backend == "trio":
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
    import asyncio

    return asyncio.get_running_loop().call_soon_threadsafe


def _outcome(
    portal: BlockingPortal, coro: Coroutine[Any, Any, T] | Callable[[], Awaitable[T]], timeout: float | None
) -> T:
    async def awaited() -> T:
        return await (coro() if callable(coro) else coro)

    try:
        future = portal.start_task_soon(awaited)
    except RuntimeError as error:
        if inspect.iscoroutine(coro):
            coro.close()
        raise AsyncBridgeClosedError("the event loop of this async bridge has ended") from error
    try:
        return future.result(timeout)
    except CancelledError as error:
        raise AsyncBridgeClosedError("this async bridge was shut down while the coroutine ran") from error
    except TimeoutError:
        if not future.cancel():
            return future.result()  # it has just ended, perhaps with a TimeoutError of its own
        raise TimeoutError(f"the coroutine did not end within {timeout} s and was cancelled") from None
    except BaseException:
        future.cancel()  # an interrupt of the waiting thread; without effect when the coroutine has ended
        raise


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - monotonic())


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise AsyncBridgeError(f"{package} is not installed; install loom-streaming[{package}]")
