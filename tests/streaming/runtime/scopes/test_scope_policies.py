"""Retry, rate limit and circuit breaker of a scope: calls wait on the worker's clock, in order, and end in one place each.

The clock is the test kit's: it moves only between the script's moments and, when the input is over, to what waits.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom.core.errors import NotFound
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    CircuitBreaker,
    ErrorKind,
    ExpandStep,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RateLimit,
    Retry,
    RetryAfter,
    StreamFlow,
    With,
    WithAsync,
    compile_flow,
    step,
)
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.kafka import KafkaRecord, TopicPartition
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.runtime.scopes.stopping import stopped_while
from tests.support.running import config_for, in_memory, numbers

#: waits of 100, 200, 400 ms, without chance
EVEN = Retry(4, wait_jitter_ms=0)


class Number(LoomFrozenStruct):
    n: int
    key: str = ""


class System:
    """What the step calls, and when it did: by the clock of the runner."""

    def __init__(self, fails: Callable[[int, int, float], BaseException | None]) -> None:
        #: (number, which call of it from 1 on, when) -> what the call raises
        self._fails = fails
        self.calls: list[tuple[float, int]] = []
        self.runner: StreamingTestRunner | None = None

    @property
    def now(self) -> float:
        return self.runner._clock.now if self.runner is not None else 0.0

    async def ask(self, n: int) -> None:
        now = self.now
        self.calls.append((now, n))
        await anyio.lowlevel.checkpoint()
        error = self._fails(n, self.count(n), now)
        if error is not None:
            raise error

    def count(self, n: int) -> int:
        return sum(1 for _, called in self.calls if called == n)

    def times(self, n: int) -> list[float]:
        return [round(at, 3) for at, called in self.calls if called == n]

    def step(self) -> Any:
        @step(name="ask")
        async def ask(number: Number) -> Number:
            await self.ask(number.n)
            return number

        return ask


def scoped(system: System, errors: Any = IntoTopic("errors"), **policies: Any) -> StreamFlow[Any, Any]:  # noqa: B008
    scope = WithAsync(process=Process(system.step()), **policies)
    return StreamFlow("scoped", FromTopic("numbers", Number), Process(scope), IntoTopic("out"), errors)


def runner_of(system: System, *, errors: Any = IntoTopic("errors"), **policies: Any) -> StreamingTestRunner:  # noqa: B008
    system.runner = StreamingTestRunner.from_flow(scoped(system, errors, **policies))
    return system.runner


def of(*values: int) -> list[Number]:
    return [Number(value) for value in values]


def out_of(runner: StreamingTestRunner) -> list[int]:
    return [message.payload.n for message in runner.output]


def fails_first(failures: dict[int, int], error: Callable[[], BaseException] = OSError) -> Any:
    return lambda n, call, now: error() if call <= failures.get(n, 0) else None


# ---- retry


def test_a_call_that_fails_is_repeated_while_others_go_on_and_its_result_leaves_in_its_place() -> None:
    system = System(fails_first({1: 2}))
    runner = runner_of(system, retry=EVEN).with_payloads(of(0, 1, 2, 3)).run()
    assert out_of(runner) == [0, 1, 2, 3]
    assert system.times(1) == [0.0, 0.1, 0.3]
    assert all(system.times(n) == [0.0] for n in (0, 2, 3))
    assert runner.counts.retries == {"scoped.with_async": 2}


def test_when_no_attempt_is_left_the_error_tells_how_many_there_were() -> None:
    system = System(fails_first({1: 99}))
    runner = runner_of(system, retry=EVEN, errors=None).capture_errors().with_payloads(of(0, 1, 2)).run()
    (envelope,) = runner.errors[ErrorKind.TASK]
    assert (envelope.attempts, envelope.step_id, envelope.error_type) == (4, "scoped.ask", "builtins.OSError")
    assert out_of(runner) == [0, 2]
    assert system.count(1) == 4


def test_what_the_policy_gives_up_on_is_an_error_at_once() -> None:
    system = System(fails_first({1: 99}, lambda: NotFound("no")))
    runner = runner_of(system, retry=EVEN).with_payloads(of(0, 1)).run()
    assert [envelope.attempts for envelope in runner.errors[ErrorKind.BUSINESS]] == [1]
    assert system.count(1) == 1


def test_a_call_sets_its_next_wait_by_retry_after() -> None:
    system = System(fails_first({0: 1}, lambda: RetryAfter(7)))
    runner_of(system, retry=Retry(wait_max_ms=60_000)).with_payloads(of(0)).run()
    assert system.times(0) == [0.0, 7.0]


def test_a_repeated_call_begins_at_its_first_step_and_nothing_of_the_failed_one_leaves() -> None:
    first: list[int] = []
    system = System(fails_first({2: 1}))

    @step
    async def before(number: Number) -> Number:
        first.append(number.n)
        return number

    class Twice(ExpandStep[Number, Number]):
        async def execute(self, message: Message[Number]) -> list[Number]:  # type: ignore[override]
            return [Number(message.payload.n * 2), Number(message.payload.n * 2 + 1)]

    scope = WithAsync(process=Process(before, Twice, system.step()), retry=EVEN)
    flow = StreamFlow("scoped", FromTopic("numbers", Number), Process(scope), IntoTopic("out"), IntoTopic("errors"))
    runner = StreamingTestRunner.from_flow(flow).with_payloads(of(0, 1, 2)).run()
    assert out_of(runner) == [0, 1, 2, 3, 4, 5]
    assert sorted(first) == [0, 1, 1, 2]


def test_a_call_that_timed_out_is_repeated() -> None:
    calls: list[int] = []

    @step
    async def ask(number: Number) -> Number:
        calls.append(number.n)
        if len(calls) == 1:
            await anyio.sleep_forever()
        return number

    scope = WithAsync(process=Process(ask), task_timeout_ms=300, retry=Retry(3, wait_initial_ms=1, wait_jitter_ms=0))
    flow = StreamFlow("scoped", FromTopic("numbers", Number), Process(scope), IntoTopic("out"), IntoTopic("errors"))
    ran = in_memory(flow, numbers(5))
    assert ([payload.n for payload in ran.payloads()], calls) == ([5], [5, 5])


def test_under_key_order_later_calls_of_a_key_wait_for_the_repeated_one() -> None:
    system = System(fails_first({0: 1}))
    runner = runner_of(system, retry=EVEN, ordering="key")
    runner.with_payloads([Number(0, "a"), Number(1, "a"), Number(2, "b")], key=lambda number: number.key).run()
    assert system.times(1) == [0.1]
    assert system.times(2) == [0.0]


def test_results_that_are_not_declared_are_not_asked_for_again() -> None:
    calls: list[int] = []

    @step
    async def wrong(number: Number) -> Number:
        calls.append(number.n)
        return "text"  # type: ignore[return-value]

    scope = WithAsync(process=Process(wrong), retry=EVEN, circuit_breaker=CircuitBreaker(1, 1_000))
    flow = StreamFlow("scoped", FromTopic("numbers", Number), Process(scope), IntoTopic("out"), IntoTopic("errors"))
    runner = StreamingTestRunner.from_flow(flow).with_payloads(of(0, 1)).run()
    assert (sorted(calls), len(runner.errors[ErrorKind.TASK])) == ([0, 1], 2)


# ---- rate limit


def test_calls_begin_no_faster_than_the_limit_and_results_keep_their_order() -> None:
    system = System(fails_first({}))
    runner = runner_of(system, rate_limit=RateLimit(10, burst=2)).with_payloads(of(*range(8))).run()
    assert out_of(runner) == list(range(8))
    assert [round(at, 3) for at, _ in system.calls] == pytest.approx([0, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], abs=0.002)


def test_a_limit_counts_repeated_calls_too() -> None:
    system = System(fails_first({0: 2}))
    runner_of(system, rate_limit=RateLimit(2), retry=Retry(5, wait_initial_ms=1, wait_jitter_ms=0)).with_payloads(
        of(0, 1)
    ).run()
    begins = [at for at, _ in system.calls]
    assert all(after - before >= 0.499 for before, after in itertools.pairwise(begins))
    assert len(begins) == 4


# ---- circuit breaker


def down_until(at: float) -> Any:
    return lambda n, call, now: ConnectionError("down") if now < at else None


def test_while_the_system_is_down_for_a_minute_nothing_becomes_an_error_and_few_calls_are_made() -> None:
    system = System(down_until(60.0))
    runner = runner_of(system, circuit_breaker=CircuitBreaker(5, 10_000)).with_payloads(of(*range(200))).run()
    assert out_of(runner) == list(range(200))
    assert not runner.errors[ErrorKind.TASK]
    assert sum(1 for at, _ in system.calls if at < 60.0) < 40
    assert runner.counts.open_circuits == {"scoped.with_async": 0}
    assert runner.counts.written == 200


def test_while_the_breaker_is_open_nothing_is_read() -> None:
    system = System(down_until(60.0))
    runner = runner_of(system, circuit_breaker=CircuitBreaker(3, 10_000), max_concurrency=3).with_batch_size(3)
    runner.with_payloads(of(*range(100))).run()
    called = {n for at, n in system.calls if at < 60.0}
    # What was read before it opened, and one more for each probe once all of those have failed as one.
    assert len(called) < 30
    assert out_of(runner) == list(range(100))


def test_attempts_are_not_used_up_while_the_system_is_down() -> None:
    system = System(down_until(30.0))
    runner = (
        runner_of(system, retry=Retry(2), circuit_breaker=CircuitBreaker(3, 5_000)).with_payloads(of(*range(20))).run()
    )
    assert out_of(runner) == list(range(20))
    assert not runner.errors[ErrorKind.TASK]


def test_a_record_that_fails_while_others_are_answered_is_an_error() -> None:
    system = System(lambda n, call, now: ValueError("bad") if n == 3 else None)
    runner = runner_of(system, circuit_breaker=CircuitBreaker(5, 1_000)).with_payloads(of(*range(12))).run()
    assert len(runner.errors[ErrorKind.TASK]) == 1
    assert out_of(runner) == [n for n in range(12) if n != 3]


def test_a_last_record_that_always_fails_is_an_error_in_the_end() -> None:
    system = System(fails_first({1: 10_000}))
    runner = runner_of(system, circuit_breaker=CircuitBreaker(2, 1_000)).with_payloads(of(0, 1)).run()
    assert (out_of(runner), len(runner.errors[ErrorKind.TASK])) == ([0], 1)


# ---- the end


DELAYING = pytest.mark.parametrize(
    "policies",
    [
        # Each for longer than any test may take.
        {"retry": Retry(9, wait_initial_ms=3_600_000, wait_max_ms=3_600_000)},
        {"circuit_breaker": CircuitBreaker(1, 3_600_000)},
        {"rate_limit": RateLimit(0.0001, burst=2)},
    ],
    ids=["retry", "breaker", "limit"],
)


@DELAYING
def test_a_stop_does_not_wait_for_calls_that_a_policy_delays_and_leaves_their_records_unconfirmed(
    policies: Any,
) -> None:
    started, release = threading.Event(), threading.Event()

    def fails(n: int, call: int, now: float) -> BaseException | None:
        if n == 1:
            started.set()
            return OSError()
        return None

    out, confirmed = stopped_while(scoped(System(fails), **policies), numbers(0, 1, 2, 3), started, release)
    # Under a limit of two calls the second one has failed for good.
    assert confirmed == {TopicPartition("numbers", 0): 2 if "rate_limit" in policies else 1}
    assert [message.payload.n for message in out] == [0]


@DELAYING
def test_where_offsets_are_committed_already_a_stop_makes_every_call_once_more(policies: Any) -> None:
    started, release = threading.Event(), threading.Event()

    def fails(n: int, call: int, now: float) -> BaseException | None:
        if n == 1:
            started.set()
            return OSError()
        return None

    flow = scoped(System(fails), **policies)
    out, _ = stopped_while(flow, numbers(0, 1, 2, 3), started, release, delivery="at_most_once")
    assert [message.payload.n for message in out] == [0, 2, 3]


# ---- any schedule


@given(
    partitions=st.lists(st.integers(0, 2), min_size=1, max_size=25),
    failures=st.lists(st.sampled_from([0, 0, 0, 1, 2, 9]), min_size=1, max_size=5),
    refused=st.sets(st.integers(0, 24), max_size=3),
    pauses=st.lists(st.sampled_from([0, 1, 150, 3_000]), max_size=4),
    batch_size=st.integers(1, 8),
    at_once=st.integers(1, 6),
    ordering=st.sampled_from(["partition", "key", "none"]),
    retry=st.none() | st.builds(lambda n: Retry(n, wait_jitter_ms=50), st.integers(1, 3)),
    limit=st.none() | st.builds(RateLimit, st.sampled_from([5, 200]), st.integers(1, 4)),
    delivery=st.sampled_from(["at_least_once", "exactly_once"]),
)
@settings(max_examples=40, deadline=None)
def test_whatever_fails_whenever_each_record_ends_once_and_in_order(
    partitions: list[int],
    failures: list[int],
    refused: set[int],
    pauses: list[int],
    batch_size: int,
    at_once: int,
    ordering: str,
    retry: Retry | None,
    limit: RateLimit | None,
    delivery: str,
) -> None:
    def fails(n: int, call: int, now: float) -> BaseException | None:
        if n in refused:
            return NotFound("no")
        return OSError() if call <= failures[n % len(failures)] else None

    system = System(fails)
    declared = scoped(system, None, max_concurrency=at_once, ordering=ordering, retry=retry, rate_limit=limit)
    config = config_for(consumer={"delivery": delivery})
    runner = system.runner = (
        StreamingTestRunner.from_dict(declared, config).with_batch_size(batch_size).capture_errors()
    )
    offsets: Counter[int] = Counter()
    waits = iter(pauses)
    for n, partition in enumerate(partitions):
        record = KafkaRecord("numbers", b"k%d" % (n % 4), b'{"n":%d}' % n, {}, partition, offsets[partition])
        offsets[partition] += 1
        runner.with_records([record])
        if n % 5 == 4 and (pause := next(waits, 0)):
            runner.advance(pause)
    runner.run()

    most = retry.attempts if retry is not None else 1
    out = out_of(runner)
    failed = {e.original_message.payload.n: e for kind in ErrorKind for e in runner.errors[kind] if e.original_message}
    assert sorted([*out, *failed]) == list(range(len(partitions)))
    for n in range(len(partitions)):
        trouble = failures[n % len(failures)]
        if n in refused:
            assert (failed[n].kind, system.count(n)) == (ErrorKind.BUSINESS, 1)
        elif trouble >= most:
            assert (failed[n].kind, system.count(n)) == (ErrorKind.TASK, most)
            assert failed[n].attempts == (most if retry is not None or limit is not None else None)
        else:
            assert (n in out, system.count(n)) == (True, trouble + 1)
    groups = [key % 4 for key in range(len(partitions))] if ordering == "key" else partitions
    if ordering != "none":
        for group in set(groups):
            of_group = [n for n in out if groups[n] == group]
            assert of_group == sorted(of_group)
    counts = runner.counts
    assert (counts.read, counts.accounted) == (len(partitions), len(partitions))


# ---- the same for blocking steps


@pytest.mark.parametrize("max_threads", [1, 3])
def test_a_scope_of_blocking_steps_keeps_the_same_policies(max_threads: int) -> None:
    calls: list[tuple[float, int, str]] = []
    tries: Counter[int] = Counter()

    @step
    def ask(number: Number, client: str) -> Number:
        now = runner._clock.now
        calls.append((now, number.n, client))
        tries[number.n] += 1
        if now < 20.0:
            raise ConnectionError("down")
        if number.n == 5:
            raise ValueError("bad")
        return number

    scope = With(
        process=Process(ask),
        client="connected",
        max_threads=max_threads,
        retry=Retry(2, wait_jitter_ms=0),
        rate_limit=RateLimit(10, burst=2),
        circuit_breaker=CircuitBreaker(3, 5_000),
    )
    flow = StreamFlow("scoped", FromTopic("numbers", Number), Process(scope), IntoTopic("out"))
    runner = StreamingTestRunner.from_flow(flow).capture_errors().with_payloads(of(*range(12)))
    runner.run()
    assert out_of(runner) == [n for n in range(12) if n != 5]
    (envelope,) = runner.errors[ErrorKind.TASK]
    assert (envelope.reason, envelope.attempts) == ("bad", 2)
    assert {client for *_, client in calls} == {"connected"}
    begins = sorted(at for at, *_ in calls)
    assert all(begins[i + 2] - begins[i] >= 0.099 for i in range(len(begins) - 2))
    assert sum(1 for at in begins if at < 20.0) < 12


def test_a_step_with_a_policy_of_its_own_cannot_be_in_a_scope_with_one() -> None:
    @step(retry=EVEN)
    def ask(number: Number) -> Number:
        return number

    scope = With(process=Process(ask), rate_limit=RateLimit(5))
    flow = StreamFlow("scoped", FromTopic("numbers", Number), Process(scope), IntoTopic("out"), IntoTopic("errors"))
    with pytest.raises(CompilationError, match="has a retry policy of its own"):
        compile_flow(flow, config=config_for())


# ---- compiling


@pytest.mark.parametrize("name", ["retry", "rate_limit", "circuit_breaker"])
@pytest.mark.parametrize("scope", [With, WithAsync])
def test_a_policy_of_another_type_is_refused(name: str, scope: Any) -> None:
    with pytest.raises(TypeError, match=rf"{name}=…\) is a parameter of a scope and takes a "):
        scope(process=Process(step(lambda number: number)), **{name: 5})


def test_the_plan_tells_of_the_policies() -> None:
    system = System(fails_first({}))
    plan = compile_flow(
        scoped(system, retry=Retry(7), rate_limit=RateLimit(50), circuit_breaker=CircuitBreaker(3, 1_000)),
        config=config_for(),
    )
    told = plan.explain()
    for part in ("up to 7 attempts", "up to 50 calls per second", "a circuit breaker after 3 failures"):
        assert part in told


def test_under_exactly_once_a_scope_may_not_wait_longer_than_half_a_transaction() -> None:
    system = System(fails_first({}))
    with pytest.raises(CompilationError) as refused:
        compile_flow(
            scoped(system, retry=Retry(20, wait_max_ms=30_000)),
            config=config_for(consumer={"delivery": "exactly_once"}),
        )
    assert [(issue.code, issue.path) for issue in refused.value.errors] == [(Code.DELIVERY_UNKEPT, (0,))]
