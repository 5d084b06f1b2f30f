"""`With`: resources by name, opened when first needed, closed in reverse exactly once on every way out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    CollectBatch,
    ContextFactory,
    ErrorKind,
    ExpandStep,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    ResourceScope,
    Router,
    StreamFlow,
    With,
    compile_flow,
    payload,
    step,
)
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.engine import load_engine
from loom.streaming.runtime.run_errors import ResourceError
from loom.streaming.testing import StreamingTestRunner
from tests.support.engines import chosen_engine
from tests.support.running import causes, config_for, in_memory, numbers


class Number(LoomFrozenStruct):
    n: int


class Log:
    """What was opened and closed, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.threads: set[int] = set()

    def resource(self, name: str, *, fails: str | None = None) -> ContextFactory:
        @contextmanager
        def opened() -> Iterator[str]:
            if fails == "open":
                raise OSError("refused")
            self.entries.append(f"+{name}")
            self.threads.add(threading.get_ident())
            try:
                yield name
            except BaseException as error:
                self.entries.append(f"!{name} {type(error).__name__}")
                raise
            self.threads.add(threading.get_ident())
            if fails == "close":
                raise OSError("not committed")
            self.entries.append(f"-{name}")

        return ContextFactory(opened)

    @property
    def balance(self) -> int:
        return sum({"+": 1, "-": -1, "!": -1}[entry[0]] for entry in self.entries)


@step
def add(number: Number, by: int) -> Number:
    return Number(number.n + by)


@step
def use(number: Number, client: str) -> Number:
    if number.n == 13:
        raise ValueError("thirteen")
    return number


class Use(RecordStep[Number, Number]):
    name = "look_on"

    def execute(self, message: Message[Number], *, client: str, other: str = "none") -> Number:
        return message.payload


def flow(*nodes: Any, errors: Any = IntoTopic("errors"), output: Any = IntoTopic("out")) -> StreamFlow[Any, Any]:  # noqa: B008
    return StreamFlow("scoped", FromTopic("numbers", Number), Process(*nodes), output, errors)


def ran(declared: StreamFlow[Any, Any], *values: int, batch_size: int = 100, **options: Any) -> Any:
    return in_memory(declared, numbers(*values), config=config_for(consumer={"batch_size": batch_size}), **options)


def test_a_value_is_given_by_name_to_functions_classes_and_expansions() -> None:
    class Repeat(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number], times: int) -> list[Number]:
            return [message.payload] * times

    class Sum(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]], by: int) -> list[Number]:
            return [Number(message.payload.n + by) for message in messages]

    class Any_(RecordStep[Number, Number]):
        name = "any"

        def execute(self, message: Message[Number], **deps: Any) -> Number:
            assert deps == {"by": 10, "times": 2}
            return message.payload

    out = ran(flow(With(process=Process(add, Repeat, Sum, Any_), by=10, times=2)), 1, 2)
    assert [one.n for one in out.payloads()] == [21, 21, 22, 22]


def test_a_parameter_with_a_default_is_given_too() -> None:
    seen: list[str] = []

    @step
    def look(number: Number, client: str = "default") -> Number:
        seen.append(client)
        return number

    ran(flow(With(process=Process(look), client="given")), 1)
    assert seen == ["given"]


def test_a_worker_scoped_resource_is_opened_when_it_is_first_used_and_not_before() -> None:
    log = Log()
    declared = flow(With(process=Process(use), client=log.resource("client")))
    plan = compile_flow(declared, config=config_for())
    built = load_engine(chosen_engine()).lower(plan, BuildOptions())
    assert log.entries == []
    built.shutdown()
    ran(declared)
    assert log.entries == []  # no record came
    ran(declared, 1, 2, 3, batch_size=1)
    assert log.entries == ["+client", "-client"]


def test_resources_close_in_reverse() -> None:
    log = Log()
    scope = With(process=Process(Use), client=log.resource("a"), other=log.resource("b"))
    ran(flow(scope), 1, 2)
    assert log.entries == ["+a", "+b", "-b", "-a"]
    assert log.threads == {threading.get_ident()}


def test_a_batch_scoped_resource_lives_for_one_batch() -> None:
    log = Log()
    ran(flow(With("batch", process=Process(use), client=log.resource("client"))), 1, 2, 3, batch_size=2)  # type: ignore[arg-type]
    assert log.entries == ["+client", "-client"] * 2


def test_a_batch_scope_behind_a_collector_covers_the_collected_batch() -> None:
    log = Log()

    class Store(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]], client: str) -> list[Number]:
            log.entries.append(f"={len(messages)}")
            return [message.payload for message in messages]

    scope = With(ResourceScope.BATCH, process=Process(Store), client=log.resource("client"))
    ran(flow(CollectBatch(2, timeout_ms=60_000), scope, ForEach()), 1, 2, 3, batch_size=1)
    assert log.entries == ["+client", "=2", "-client", "+client", "=1", "-client"]


@pytest.mark.parametrize("life", list(ResourceScope))
def test_if_the_third_of_five_does_not_open_the_first_two_are_closed_and_the_run_ends(life: ResourceScope) -> None:
    log = Log()

    @step
    def five(number: Number, a: str, b: str, c: str, d: str, e: str) -> Number:
        return number

    deps = {name: log.resource(name, fails="open" if name == "c" else None) for name in "abcde"}
    runner = StreamingTestRunner.from_flow(flow(With(life, process=Process(five), **deps))).with_payloads([Number(1)])
    with pytest.raises(ResourceError, match=r"the resource 'c' of scoped\.with does not open: OSError: refused"):
        runner.run()
    assert log.entries == ["+a", "+b", "!b ResourceError", "!a ResourceError"]
    assert log.balance == 0
    assert runner.errors == {}


def test_the_crash_of_a_step_is_an_error_of_its_record_and_closes_nothing() -> None:
    log = Log()
    out = ran(flow(With(process=Process(use), client=log.resource("client"))), 1, 13, 2, batch_size=1)
    assert [one.n for one in out.payloads()] == [1, 2]
    assert out.reasons(ErrorKind.TASK) == ["thirteen"]
    assert log.entries == ["+client", "-client"]


@pytest.mark.parametrize("life", list(ResourceScope))
def test_a_run_that_fails_closes_its_resources_and_tells_them_why(life: ResourceScope) -> None:
    log = Log()
    scope = With(life, process=Process(Use, use), client=log.resource("client"), other=log.resource("other"))
    runner = StreamingTestRunner.from_flow(flow(scope, errors=None)).with_payloads([Number(1), Number(13)])
    with pytest.raises(Exception, match="thirteen"):
        runner.run()
    assert log.entries[:2] == ["+client", "+other"]
    assert log.entries[2:] == ["!other UnroutedRecordError", "!client UnroutedRecordError"]


def test_a_batch_whose_resources_do_not_close_is_not_committed() -> None:
    log = Log()
    scope = With(ResourceScope.BATCH, process=Process(use), client=log.resource("client", fails="close"))
    runner = StreamingTestRunner.from_flow(flow(scope)).with_payloads([Number(1)])
    with pytest.raises(ResourceError, match="do not close: OSError: not committed") as raised:
        runner.run()
    assert isinstance(causes(raised.value)[-1], OSError)
    assert runner.output == []


def test_a_resource_of_a_worker_that_does_not_close_is_logged_and_the_others_close(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = Log()
    scope = With(process=Process(Use), client=log.resource("a"), other=log.resource("b", fails="close"))
    out = ran(flow(scope), 1)
    assert len(out.output) == 1
    assert log.entries == ["+a", "+b", "!a OSError"]
    assert "close_failed" in capsys.readouterr().err


def test_two_scopes_at_the_same_index_in_different_branches_have_resources_of_their_own() -> None:
    log = Log()
    seen: dict[str, list[int]] = {"es": [], "uk": []}

    @step
    def look(number: Number, client: str) -> Number:
        seen[client].append(number.n)
        return number

    branches = {
        1: Process(With(process=Process(look), client=log.resource("es"))),
        2: Process(With(process=Process(look), client=log.resource("uk"))),
    }
    ran(flow(Router.by(payload.n, branches)), 1, 2, 1)
    assert seen == {"es": [1, 1], "uk": [2]}
    assert log.entries == ["+es", "+uk", "-uk", "-es"]


def test_an_inner_topic_takes_the_message_and_ends_it() -> None:
    out = ran(flow(With(process=Process(add, IntoTopic("inner")), by=1), output=None), 1, 2)
    assert [one.n for one in out.payloads((0, 1))] == [2, 3]
    assert out.counts.written == 2


def test_a_sync_scope_confirms_its_records() -> None:
    counts = ran(flow(With(process=Process(add), by=1)), 1, 2).counts
    assert (counts.read, counts.written, counts.durable) == (2, 2, 2)


def test_routers_inside_a_scope_go_on_behind_it() -> None:
    router = Router.by(payload.n, {1: Process(add), 2: Process(IntoTopic("two"))}, default=Process(use))
    out = ran(flow(With(process=Process(router), by=10, client="c"), add_one), 1, 2, 3)
    assert [one.n for one in out.payloads()] == [12, 4]
    assert [one.n for one in out.payloads((0, 0, 1, 0))] == [2]


@step(name="add_one")
def add_one(number: Number) -> Number:
    return Number(number.n + 1)


def test_a_factory_is_bound_to_its_section() -> None:
    class Client(ContextFactory):
        def __init__(self, url: str) -> None:
            self.url = url

        def create(self) -> Any:
            return contextmanager(lambda: iter([self.url]))()

    seen: list[str] = []

    @step
    def look(number: Number, client: str) -> Number:
        seen.append(client)
        return number

    declared = flow(With(process=Process(look), client=Client.from_config("http")))
    config = config_for(http={"url": "http://x"})
    in_memory(declared, numbers(1), config=config)
    assert seen == ["http://x"]
    assert compile_flow(declared, config=config) == compile_flow(declared, config=config)
    with pytest.raises(CompilationError) as refused:
        compile_flow(declared, config=config_for(http={"uri": "x"}))
    assert {issue.code for issue in refused.value.errors} == {Code.CONFIG_INVALID}


def test_a_context_given_as_an_object_is_entered_once() -> None:
    log = Log()
    declared = flow(With(process=Process(use), client=log.resource("client").create()))
    ran(declared, 1)
    assert log.entries == ["+client", "-client"]
    with pytest.raises(BaseException) as again:
        ran(declared, 1)
    assert any("Write client=ContextFactory(…)" in str(cause) for cause in causes(again.value))


def issues(*nodes: Any) -> list[tuple[Code, tuple[int, ...], str]]:
    with pytest.raises(CompilationError) as refused:
        compile_flow(flow(*nodes), config=config_for())
    return [(issue.code, issue.path, issue.message) for issue in refused.value.errors]


def test_a_name_that_no_step_takes_is_a_compile_error() -> None:
    assert issues(With(process=Process(add), by=1, to=2)) == [
        (Code.SCOPE_DEPENDENCY, (0,), "no step in With takes 'to'")
    ]


def test_a_parameter_that_nobody_provides_is_a_compile_error() -> None:
    assert issues(With(process=Process(use, add), client="c")) == [
        (Code.STEP_DEPENDENCY, (0, 1), "add asks for 'by', which nothing provides")
    ]


def test_an_async_context_in_with_is_a_compile_error() -> None:
    class Client:
        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *args: Any) -> None: ...

    wanted = [(Code.SCOPE_DEPENDENCY, (0,), "'client' is an async context, which With cannot open")]
    assert issues(With(process=Process(use), client=Client())) == wanted
    assert issues(With(process=Process(use), client=ContextFactory(Client))) == wanted


def test_a_context_that_can_be_entered_once_is_refused_for_batches() -> None:
    (found,) = issues(With(ResourceScope.BATCH, process=Process(use), client=Log().resource("client").create()))
    assert found[0] is Code.SCOPE_DEPENDENCY
    assert "can be entered only once" in found[2]


def test_a_collector_inside_a_scope_of_batches_is_refused() -> None:
    scope = With(ResourceScope.BATCH, process=Process(use, CollectBatch(2, 10), ForEach()), client=1)
    assert [(code, path) for code, path, _ in issues(scope)] == [(Code.SCOPE_NODE, (0, 1))]


@pytest.mark.parametrize("name", ["retry", "rate_limit", "circuit_breaker", "ordering", "task_timeout_ms"])
def test_a_dependency_that_is_called_like_a_parameter_of_a_scope_is_refused_in_words(name: str) -> None:
    with pytest.raises(
        (ValueError, TypeError), match=rf"With\({name}=…\) is a parameter of a scope .* rename the dependency"
    ):
        With(process=Process(use), **{name: object()})


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "4"])
def test_limits_that_are_not_positive_numbers_are_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"With\(max_threads="):
        With(process=Process(use), max_threads=limit)
