"""Sinks that are named in the config: built from their section, bound to a purpose, and weaker than what is said explicitly."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from loom.core.config import ConfigContext, ConfigError
from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime
from loom.streaming import ErrorKind, FromTopic, IntoTopic, Message, Process, StreamFlow, StreamingRunner, step
from loom.streaming.bytewax import DuplicateErrorSinkError, RuntimeSinkBinding, SinkRegistry
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.kafka import EmbeddedBroker
from tests.support.running import NOBODY, all_done, config_for, content, keeping, produce, run_until
from tests.support.scripted import ListSink


class Number(LoomFrozenStruct):
    n: int


@step
def positive(number: Number) -> Number:
    if number.n == 0:
        raise RuleViolation("zero")
    if number.n < 0:
        raise ValueError("negative")
    return number


FLOW = StreamFlow("checking", FromTopic("numbers", Number), Process(positive), IntoTopic("out"))
ROUTED = StreamFlow("checking", FromTopic("numbers", Number), Process(positive), IntoTopic("out"), IntoTopic("errors"))


class Settings(LoomFrozenStruct):
    purpose: str
    kinds: tuple[ErrorKind, ...] = ()
    retries: int = 0


class Keeping:
    """Keeps what its sinks are written, and what it was told when they were built."""

    sink_type: ClassVar[str] = "keeping"
    config_type: ClassVar[type] = Settings
    taken: ClassVar[dict[str, list[Any]]] = {}
    told: ClassVar[list[tuple[Any, Any]]] = []

    @classmethod
    def build_binding(cls, cfg: Any, ctx: Any) -> RuntimeSinkBinding:
        cls.told.append((cfg, ctx))
        taken = cls.taken.setdefault(ctx.name, [])
        return RuntimeSinkBinding(cfg.purpose, keeping(taken), cfg.kinds)


@pytest.fixture(autouse=True)
def _forget() -> None:
    Keeping.taken.clear()
    Keeping.told.clear()


def config(bootstrap: str = NOBODY, **sinks: Any) -> dict[str, Any]:
    made = config_for(bootstrap, consumer={"delivery": "at_least_once"})
    made["streaming"]["sinks"] = {name: {"type": "keeping", **section} for name, section in sinks.items()}
    return made


def runner(flow: StreamFlow[Any, Any], config: dict[str, Any], **more: Any) -> StreamingRunner:
    made = StreamingRunner.from_dict(flow, config, **more)
    made.register_sink(Keeping)
    return made


def reasons(name: str) -> list[str]:
    return [envelope.reason for envelope in Keeping.taken[name]]


@pytest.fixture
def some(broker: EmbeddedBroker) -> EmbeddedBroker:
    """A broker on which five numbers stand, and no topic to write to."""
    broker.create_topic("numbers")
    produce(broker.bootstrap, "numbers", b'{"n":1}', b'{"n":0}', b'{"n":-1}', b"{", b'{"n":2}')
    return broker


def test_a_terminal_sink_takes_the_output_in_place_of_the_topic_which_need_not_exist(some: EmbeddedBroker) -> None:
    made = config(some.bootstrap, store={"purpose": "terminal"}, failures={"purpose": "errors"})
    run_until(runner(FLOW, made), all_done(5))
    assert all(isinstance(message, Message) for message in Keeping.taken["store"])
    assert [message.payload for message in Keeping.taken["store"]] == [Number(1), Number(2)]
    assert reasons("failures") == ["zero", "negative", "Input data was truncated"]


def test_an_error_sink_takes_the_kinds_it_names(some: EmbeddedBroker) -> None:
    made = config(
        some.bootstrap,
        store={"purpose": "terminal"},
        rules={"purpose": "errors", "kinds": ["business"]},
        rest={"purpose": "errors", "kinds": ["wire", "routing", "task"]},
    )
    run_until(runner(FLOW, made), all_done(5))
    assert (reasons("rules"), len(reasons("rest"))) == (["zero"], 2)


def test_explicit_error_sinks_win_over_registered_ones_and_those_over_the_flows_routes(some: EmbeddedBroker) -> None:
    some.create_topic("errors")
    explicit: list[Any] = []
    made = config(
        some.bootstrap, store={"purpose": "terminal"}, both={"purpose": "errors", "kinds": ["business", "task"]}
    )
    run_until(runner(ROUTED, made), all_done(5), error_sinks={ErrorKind.TASK: keeping(explicit)})
    assert [envelope.reason for envelope in explicit] == ["negative"]
    assert reasons("both") == ["zero"]
    assert [record.value for record in content(some.bootstrap, "errors")["errors"]] == [b"{"]


@pytest.mark.bytewax
def test_prepare_run_takes_explicit_error_sinks_too() -> None:
    made = runner(FLOW, config(store={"purpose": "terminal"}))
    prepared = made.prepare_run(error_sinks={ErrorKind.TASK: keeping([])})
    assert prepared.dataflow.flow_id == "checking"
    made.shutdown()


def test_a_sink_is_told_its_name_its_flow_its_config_and_who_observes() -> None:
    observed = ObservabilityRuntime.noop()
    made = runner(FLOW, config(store={"purpose": "terminal", "retries": "3"}), observability_runtime=observed)
    made.prepare_run()
    made.shutdown()
    ((cfg, ctx),) = Keeping.told
    assert cfg == Settings("terminal", (), 3)
    assert (ctx.name, ctx.flow_name) == ("store", "checking")
    assert isinstance(ctx.config, ConfigContext)
    assert ctx.config.has("kafka.consumer")
    assert ctx.observability_runtime is observed


def test_two_sinks_for_one_kind_are_an_error_that_names_the_kind_and_both() -> None:
    made = config(one={"purpose": "errors", "kinds": ["task", "wire"]}, two={"purpose": "errors", "kinds": ["wire"]})
    with pytest.raises(DuplicateErrorSinkError) as refused:
        runner(FLOW, made).prepare_run()
    assert "streaming.sinks.one and streaming.sinks.two both want the wire errors" in str(refused.value)


def test_a_sink_that_names_no_kinds_wants_them_all() -> None:
    with pytest.raises(DuplicateErrorSinkError, match=r"sinks\.all and .*sinks\.some both want the task errors"):
        runner(FLOW, config(all={"purpose": "errors"}, some={"purpose": "errors", "kinds": ["task"]})).prepare_run()


def test_two_sinks_for_the_output_are_an_error_that_names_both() -> None:
    made = config(one={"purpose": "terminal"}, two={"purpose": "terminal"})
    with pytest.raises(ConfigError) as refused:
        runner(FLOW, made).prepare_run()
    assert "streaming.sinks.two: wants the flow's output, as streaming.sinks.one does" in str(refused.value)


def test_a_sink_for_the_output_of_a_flow_that_has_none_is_an_error() -> None:
    ends_inside = StreamFlow("checking", FromTopic("numbers", Number), Process(positive, IntoTopic("out")))
    with pytest.raises(ConfigError, match=r"streaming\.sinks\.store: takes the flow's output, and 'checking' has none"):
        runner(ends_inside, config(store={"purpose": "terminal"})).prepare_run()


def refused_binding(binding: Any) -> str:
    class Making(Keeping):
        sink_type = "making"

        @classmethod
        def build_binding(cls, cfg: Any, ctx: Any) -> Any:
            if isinstance(binding, Exception):
                raise binding
            return binding

    made = StreamingRunner.from_dict(FLOW, config(store={"type": "making", "purpose": "s3cr3t"}))
    made.register_sink(Making)
    with pytest.raises(ConfigError) as refused:
        made.prepare_run()
    assert refused.value.__cause__ is None
    return str(refused.value)


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        (None, "returned a NoneType, not a RuntimeSinkBinding"),
        (RuntimeSinkBinding("backup", keeping([])), "the purpose 'backup'; there are errors, terminal, audit"),  # type: ignore[arg-type]
        (RuntimeSinkBinding("errors", keeping([]), ("task ",)), "the kind 'task ', which is no ErrorKind"),  # type: ignore[arg-type]
        (RuntimeSinkBinding("audit", keeping([]), (ErrorKind.TASK,)), "kinds for the purpose 'audit'"),
        (RuntimeSinkBinding("terminal", []), "list as its sink, which is neither a Bytewax sink nor an IntoSink"),
        (RuntimeSinkBinding("terminal", ListSink), "neither a Bytewax sink nor an IntoSink"),
        (
            RuntimeError("no s3cr3t here"),
            "Making.build_binding failed: RuntimeError raised at test_registered_sinks.py",
        ),
    ],
)
def test_a_binding_that_is_none_is_an_error_that_names_the_section(binding: Any, said: str) -> None:
    told = refused_binding(binding)
    assert "streaming.sinks.store" in told
    assert said in told
    assert "s3cr3t" not in told


def test_kinds_that_a_registered_sink_takes_are_not_unrouted() -> None:
    def warned(**sinks: Any) -> list[str]:
        made = runner(FLOW, config(**sinks))
        prepared = made.prepare_run()
        made.shutdown()
        return [warning.message for warning in prepared.plan.warnings if warning.code is Code.ERRORS_UNROUTED]

    (nothing,) = warned()
    assert nothing.startswith("no route for wire, routing, task, business errors")
    (some,) = warned(one={"purpose": "errors", "kinds": ["task", "business"]})
    assert some.startswith("no route for wire, routing errors")
    assert warned(all={"purpose": "errors"}) == []


def test_a_section_that_a_sink_reads_is_not_unread() -> None:
    class Reading(Keeping):
        sink_type = "reading"

        @classmethod
        def build_binding(cls, cfg: Any, ctx: Any) -> RuntimeSinkBinding:
            ctx.config.section("warehouse", dict[str, str])
            return RuntimeSinkBinding("audit", keeping([]))

    made = StreamingRunner.from_dict(
        FLOW, {**config(store={"type": "reading", "purpose": "x"}), "warehouse": {"url": "here"}}
    )
    made.register_sink(Reading)
    prepared = made.prepare_run()
    made.shutdown()
    assert [warning.code for warning in prepared.plan.warnings] == [Code.ERRORS_UNROUTED]


@pytest.mark.parametrize("purpose", ["errors", "terminal", "audit"])
def test_exactly_once_is_refused_with_a_sink_that_is_no_topic(purpose: str) -> None:
    made = config(store={"purpose": purpose})
    made["kafka"]["consumer"]["delivery"] = "exactly_once"
    with pytest.raises(CompilationError) as refused:
        runner(ROUTED, made).prepare_run()
    assert [(issue.code, issue.where) for issue in refused.value.errors] == [(Code.DELIVERY_UNKEPT, "config")]


def test_a_type_that_nobody_registered_is_an_error_that_names_it() -> None:
    made = config(store={"type": "clickhouse", "purpose": "terminal"})
    with pytest.raises(ConfigError) as refused:
        runner(FLOW, made).prepare_run()
    assert "clickhouse" in str(refused.value)
    assert "keeping" in str(refused.value)
    assert "streaming.sinks.store" in str(refused.value)


def test_a_section_without_a_type_is_an_error() -> None:
    made = config(store={"type": None, "purpose": "terminal"})
    with pytest.raises(ConfigError, match=r"streaming\.sinks\.store"):
        runner(FLOW, made).prepare_run()


def test_a_key_that_the_sink_does_not_know_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"retires.*retries"):
        runner(FLOW, config(store={"purpose": "terminal", "retires": 1})).prepare_run()


def test_without_a_section_nothing_is_bound() -> None:
    registry = SinkRegistry()
    registry.register(Keeping)
    assert tuple(registry.resolve(ConfigContext.from_dict({}))) == ()


def test_a_registry_resolves_to_the_bindings_in_their_order() -> None:
    registry = SinkRegistry()
    registry.register(Keeping)
    made = config(b={"purpose": "terminal"}, a={"purpose": "errors", "kinds": ["task"]})
    bindings = registry.resolve(ConfigContext.from_dict(made))
    assert [(binding.purpose, binding.kinds) for binding in bindings] == [
        ("terminal", ()),
        ("errors", (ErrorKind.TASK,)),
    ]


def test_sinks_are_registered_after_loading_and_before_the_first_use() -> None:
    made = StreamingRunner.from_dict(FLOW, config(store={"purpose": "terminal"}))
    with pytest.raises(ConfigError, match="keeping"):
        made.prepare_run()
    made.register_sink(Keeping)
    made.prepare_run().shutdown()
