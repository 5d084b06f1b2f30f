"""Coroutines run from any thread, within a limit, until the bridge is shut down, which ends in time or says so."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from loom.core.async_bridge import AsyncBridge, AsyncBridgeClosedError, AsyncBridgeError
from loom.core.errors import LoomError
from tests.support.waiting import LONG_S

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.own_event_loop]


def backends() -> list[Any]:
    return ["asyncio", pytest.param("trio", marks=needs("trio")), pytest.param("uvloop", marks=needs("uvloop"))]


def needs(package: str) -> pytest.MarkDecorator:
    try:
        __import__(package)
    except ImportError:
        return pytest.mark.skip(reason=f"{package} is not installed")
    return pytest.mark.filterwarnings("default")


@pytest.fixture(params=backends())
def bridge(request: pytest.FixtureRequest) -> Iterator[AsyncBridge]:
    made = AsyncBridge(use_uvloop=True) if request.param == "uvloop" else AsyncBridge(request.param)
    yield made
    made.shutdown(LONG_S)


async def answer() -> int:
    await anyio.lowlevel.checkpoint()
    return 42


def test_a_coroutine_is_run_to_its_end(bridge: AsyncBridge) -> None:
    assert bridge.run(answer()) == 42


def test_a_callable_without_arguments_is_run_too(bridge: AsyncBridge) -> None:
    assert bridge.run(answer) == 42


def test_what_a_coroutine_raises_is_raised(bridge: AsyncBridge) -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        bridge.run(fail())
    assert bridge.run(answer()) == 42


def test_all_coroutines_share_one_loop_on_another_thread(bridge: AsyncBridge) -> None:
    async def where() -> int:
        return threading.get_ident()

    seen = {bridge.run(where()) for _ in range(3)}
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_many_threads_may_run_at_the_same_time(bridge: AsyncBridge) -> None:
    met: list[int] = []
    everybody = threading.Barrier(8, timeout=LONG_S)

    async def meet() -> None:
        await anyio.to_thread.run_sync(everybody.wait)

    def call() -> None:
        bridge.run(meet())
        met.append(1)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(met) == 8


def test_past_its_limit_a_coroutine_is_cancelled(bridge: AsyncBridge) -> None:
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        bridge.run(hang(), timeout=0.05)
    assert cancelled.wait(LONG_S)
    assert bridge.run(answer(), timeout=LONG_S) == 42


def test_a_limit_that_is_kept_changes_nothing(bridge: AsyncBridge) -> None:
    assert bridge.run(answer(), timeout=LONG_S) == 42


def test_a_timeout_of_the_coroutine_itself_is_its_own(bridge: AsyncBridge) -> None:
    async def fail() -> None:
        raise TimeoutError("the broker's")

    with pytest.raises(TimeoutError, match="the broker's"):
        bridge.run(fail(), timeout=LONG_S)


def test_context_variables_of_the_caller_are_seen(bridge: AsyncBridge) -> None:
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("caller")

    async def read() -> str:
        return variable.get()

    assert bridge.run(read()) == "caller"


def test_the_loop_starts_with_the_first_run_only() -> None:
    # Threads of earlier tests may end meanwhile.
    before = set(threading.enumerate())
    made = AsyncBridge()
    assert set(threading.enumerate()) <= before
    assert made.shutdown() is True
    assert set(threading.enumerate()) <= before


def test_shutdown_ends_the_thread_and_may_be_repeated(bridge: AsyncBridge) -> None:
    before = set(threading.enumerate())
    bridge.run(answer())
    assert bridge.shutdown(LONG_S) is True
    assert set(threading.enumerate()) <= before
    assert bridge.shutdown() is True


def test_after_shutdown_nothing_runs(bridge: AsyncBridge) -> None:
    bridge.run(answer())
    bridge.shutdown(LONG_S)
    with pytest.raises(LoomError, match="shut down"):
        bridge.run(answer())
    unused = AsyncBridge()
    unused.shutdown()
    with pytest.raises(AsyncBridgeClosedError):
        unused.run(answer())


def test_shutdown_waits_for_what_runs(bridge: AsyncBridge) -> None:
    inside = threading.Event()
    results: list[int] = []

    async def slow() -> int:
        inside.set()
        await anyio.sleep(0.2)
        return 7

    thread = threading.Thread(target=lambda: results.append(bridge.run(slow())))
    thread.start()
    assert inside.wait(LONG_S)
    assert bridge.shutdown() is True
    thread.join()
    assert results == [7]


def test_past_its_limit_shutdown_cancels_and_says_so(bridge: AsyncBridge, capsys: pytest.CaptureFixture[str]) -> None:
    inside = threading.Event()
    raised: list[BaseException] = []

    async def hang() -> None:
        inside.set()
        await anyio.sleep_forever()

    def call() -> None:
        try:
            bridge.run(hang())
        except LoomError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert inside.wait(LONG_S)
    assert bridge.shutdown(0.05) is False
    assert "async_bridge_abandoned" in capsys.readouterr().err
    thread.join(LONG_S)
    assert [type(error) for error in raised] == [AsyncBridgeClosedError]
    assert bridge.shutdown(LONG_S) is True


def test_a_loop_that_is_blocked_is_abandoned_in_time(bridge: AsyncBridge) -> None:
    release, inside = threading.Event(), threading.Event()

    async def block() -> None:
        inside.set()
        release.wait(LONG_S)

    thread = threading.Thread(target=lambda: bridge.run(block()))
    thread.start()
    assert inside.wait(LONG_S)
    assert bridge.shutdown(0.05) is False
    release.set()
    thread.join(LONG_S)
    assert not thread.is_alive()
    assert bridge.shutdown(LONG_S) is True


def test_an_abandoned_bridge_does_not_keep_the_process_alive() -> None:
    code = (
        "import threading, time\n"
        "from loom.core.async_bridge import AsyncBridge\n"
        "bridge, inside = AsyncBridge(), threading.Event()\n"
        "async def block():\n    inside.set(); time.sleep(3_600)\n"
        "threading.Thread(target=lambda: bridge.run(block()), daemon=True).start()\n"
        "inside.wait()\n"
        "assert bridge.shutdown(0.05) is False\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LONG_S)


def test_tasks_that_a_coroutine_left_behind_end_with_the_bridge() -> None:
    made = AsyncBridge()
    ended = threading.Event()

    async def left_behind() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.set()

    async def leave() -> asyncio.Task[None]:
        task = asyncio.create_task(left_behind())
        await asyncio.sleep(0)
        return task

    made.run(leave())
    assert made.shutdown(LONG_S) is True
    assert ended.is_set()


def test_a_call_from_the_bridges_own_loop_is_refused(bridge: AsyncBridge) -> None:
    async def again() -> None:
        bridge.run(answer)

    async def stop() -> None:
        bridge.shutdown()

    for call in (again, stop):
        with pytest.raises(AsyncBridgeError, match="own event loop"):
            bridge.run(call)
    assert bridge.run(answer()) == 42


@pytest.mark.parametrize(("package", "options"), [("trio", {"backend": "trio"}), ("uvloop", {"use_uvloop": True})])
def test_a_backend_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, options: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LoomError, match=rf"loom-streaming\[{package}\]"):
        AsyncBridge(**options)


@needs("trio")
def test_uvloop_means_nothing_to_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    made = AsyncBridge("trio", use_uvloop=True)
    assert made.run(answer()) == 42
    made.shutdown()


@needs("uvloop")
def test_uvloop_is_really_used() -> None:
    async def loop() -> str:
        return type(asyncio.get_running_loop()).__module__

    made = AsyncBridge(use_uvloop=True)
    assert made.run(loop()).startswith("uvloop")
    made.shutdown()


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="curio"):
        AsyncBridge("curio")  # type: ignore[arg-type]
