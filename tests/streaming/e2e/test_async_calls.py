"""Async calls on a broker: the event loop that the config names, a bridge of the caller's, stops that take too long, order."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sniffio

from loom.core.async_bridge import AsyncBridge
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, WithAsync, compile_flow, step
from loom.streaming.bytewax import build_dataflow_with_shutdown
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from loom.streaming.runtime.run_errors import ForcedShutdownError
from tests.support.running import all_done, config_for, content, positions, produce, run_all, run_bytewax, run_until
from tests.support.waiting import LONG_S, until

RECORDS = 40


class Number(LoomFrozenStruct):
    n: int


@pytest.fixture
def filled(broker: EmbeddedBroker) -> EmbeddedBroker:
    """A broker with forty numbers in two partitions."""
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    produce(
        broker.bootstrap,
        "numbers",
        *(KafkaRecord("numbers", b"%d" % n, b'{"n":%d}' % n, partition=n % 2) for n in range(RECORDS)),
    )
    return broker


def flow(work: Any, **options: Any) -> StreamFlow[Any, Any]:
    @step(name="call")
    async def call(number: Number) -> Number:
        await work(number)
        return number

    scope = WithAsync(process=Process(call), **options)
    return StreamFlow("calling", FromTopic("numbers", Number), Process(scope), IntoTopic("out"), IntoTopic("errors"))


def config(broker: EmbeddedBroker, delivery: str = "at_least_once", **runtime: Any) -> dict[str, Any]:
    return config_for(broker.bootstrap, consumer={"delivery": delivery, "batch_size": 7}, runtime=runtime)


def written(broker: EmbeddedBroker) -> list[int]:
    return [int((record.value or b"")[5:-1]) for record in content(broker.bootstrap, "out")["out"]]


async def a_moment(number: Number) -> None:
    await anyio.sleep(0.01 / (1 + number.n % 5))


@pytest.mark.both_engines
@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
def test_every_record_is_written_once_in_the_order_of_its_partition(filled: EmbeddedBroker, delivery: str) -> None:
    run_all(flow(a_moment, max_concurrency=8), config(filled, delivery), RECORDS)
    assert sorted(written(filled)) == list(range(RECORDS))
    by_partitions: dict[tuple[int, int], list[int]] = {}
    for record in content(filled.bootstrap, "out")["out"]:
        n = int((record.value or b"")[5:-1])
        by_partitions.setdefault((record.partition, n % 2), []).append(n)
    assert all(found == sorted(found) for found in by_partitions.values())
    assert positions(filled.bootstrap, "numbers") == {0: 20, 1: 20, 2: 0, 3: 0}


@pytest.mark.own_event_loop
@pytest.mark.parametrize(
    ("runtime", "library", "loop"),
    [
        ({}, "asyncio", "asyncio"),
        ({"use_uvloop": True}, "asyncio", "uvloop"),
        ({"async_backend": "trio"}, "trio", ""),
        ({"async_backend": "trio", "use_uvloop": True}, "trio", ""),
    ],
    ids=["asyncio", "uvloop", "trio", "trio, uvloop ignored"],
)
def test_the_config_names_the_event_loop(
    filled: EmbeddedBroker, runtime: dict[str, Any], library: str, loop: str
) -> None:
    pytest.importorskip(loop or library)
    seen: set[tuple[str, str]] = set()

    async def look(number: Number) -> None:
        found = sniffio.current_async_library()
        running = type(asyncio.get_running_loop()).__module__.partition(".")[0] if found == "asyncio" else ""
        seen.add((found, running))

    run_all(flow(look), config(filled, **runtime), RECORDS)
    assert seen == {(library, loop)}
    assert len(written(filled)) == RECORDS


def test_all_workers_of_a_process_share_one_loop(filled: EmbeddedBroker) -> None:
    threads: set[int] = set()

    async def look(number: Number) -> None:
        threads.add(threading.get_ident())
        await anyio.lowlevel.checkpoint()

    run_all(flow(look), config(filled, workers_per_process=2), RECORDS)
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert sorted(written(filled)) == list(range(RECORDS))


def test_it_works_inside_a_process_that_already_runs_a_loop(filled: EmbeddedBroker) -> None:
    async def main() -> None:
        run_all(flow(a_moment), config(filled), RECORDS)

    asyncio.run(main())
    assert len(written(filled)) == RECORDS


@pytest.mark.bytewax
def test_a_bridge_of_the_callers_is_used_and_left_open(filled: EmbeddedBroker) -> None:

    bridge = AsyncBridge()
    theirs = bridge.run(_ident)
    seen: set[int] = set()
    plan = compile_flow(
        flow(lambda number: _note(seen)), config=config_for(filled.bootstrap, consumer={"delivery": "at_least_once"})
    )
    built = build_dataflow_with_shutdown(plan, bridge=bridge)
    stopper = threading.Thread(target=lambda: (_wait_for(built, RECORDS), built.shutdown()), daemon=True)
    stopper.start()
    run_bytewax(built.dataflow)
    stopper.join(LONG_S)
    built.shutdown()
    assert seen == {theirs}
    assert bridge.run(_ident) == theirs
    assert bridge.shutdown(LONG_S)
    assert sorted(written(filled)) == list(range(RECORDS))


async def _ident() -> int:
    return threading.get_ident()


async def _note(seen: set[int]) -> None:
    seen.add(threading.get_ident())


def _wait_for(built: Any, records: int) -> None:
    until(lambda: all_done(records)(built.state.metrics.read()))


def stopping_flow(hangs: Any) -> tuple[StreamFlow[Any, Any], threading.Event]:
    reached = threading.Event()

    async def hang(number: Number) -> None:
        if number.n == 10:
            reached.set()
            await hangs()

    return flow(hang, max_concurrency=50), reached


def stop_when(runner: StreamingRunner, reached: threading.Event) -> None:
    def stop() -> None:
        assert reached.wait(LONG_S)
        runner.shutdown()

    threading.Thread(target=stop, daemon=True).start()


def test_force_shutdown_timeout_ends_a_stop_that_waits_for_a_call_and_names_it(filled: EmbeddedBroker) -> None:
    cancelled: list[bool] = []

    async def hang() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    declared, reached = stopping_flow(hang)
    runner = StreamingRunner.from_dict(declared, config(filled, force_shutdown_timeout_ms=300))
    stop_when(runner, reached)
    with pytest.raises(ForcedShutdownError, match=r"calls of calling\.with_async for numbers\[0\]@5"):
        runner.run()
    assert cancelled == [True]
    # Nothing behind the hung record of its partition was confirmed, so the next run reads it again.
    assert positions(filled.bootstrap, "numbers").get(0, 0) <= 5


def test_a_call_that_cannot_be_cancelled_is_abandoned_with_a_warning(
    filled: EmbeddedBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    release = threading.Event()

    async def block() -> None:
        release.wait()  # blocks the loop

    declared, reached = stopping_flow(block)
    runner = StreamingRunner.from_dict(declared, config(filled, force_shutdown_timeout_ms=300))
    stop_when(runner, reached)
    try:
        with pytest.raises(ForcedShutdownError):
            runner.run()
    finally:
        release.set()
    said = capsys.readouterr().err
    assert "async_calls_abandoned" in said
    assert "numbers[0]@5" in said
    assert "async_bridge_abandoned" in said
    assert "calls of calling.with_async" in said


def test_a_stop_while_calls_are_in_progress_repeats_nothing_and_loses_nothing(filled: EmbeddedBroker) -> None:
    async def slow(number: Number) -> None:
        await anyio.sleep(0.02)

    declared = flow(slow, max_concurrency=4)
    run_until(StreamingRunner.from_dict(declared, config(filled)), lambda counts: counts.written >= 8)
    first = written(filled)
    confirmed = positions(filled.bootstrap, "numbers")
    assert len(first) == sum(confirmed.values())
    if len(first) < RECORDS:
        run_all(declared, config(filled), RECORDS - len(first))
    assert sorted(written(filled)) == list(range(RECORDS))
