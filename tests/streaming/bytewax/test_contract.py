"""The public names of `loom.streaming.bytewax`, to the letter: a change here is a change for every user."""

from __future__ import annotations

import inspect
import os
import signal
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource
from bytewax.outputs import FixedPartitionedSink
from bytewax.testing import TestingSink, TestingSource

import loom.streaming.bytewax as package
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    FromTopic,
    IntoTopic,
    LoomStreamingError,
    Process,
    StreamFlow,
    StreamingRunner,
    compile_flow,
    step,
)
from loom.streaming.bytewax import (
    BytewaxRecoverySettings,
    BytewaxRuntimeConfig,
    CommitTracker,
    DuplicateErrorSinkError,
    RegisteredSink,
    RuntimeSinkBinding,
    SinkRegistry,
    build_dataflow,
    build_dataflow_with_shutdown,
)
from loom.streaming.compiler import CompilationError
from loom.streaming.kafka import TopicPartition
from tests.support.running import config_for, in_memory, numbers


class Number(LoomFrozenStruct):
    n: int


@step
def double(number: Number) -> Number:
    return Number(number.n * 2)


FLOW = StreamFlow("doubling", FromTopic("numbers", Number), Process(double), IntoTopic("doubled"))


def signature(function: Callable[..., Any]) -> str:
    """Names, order, kinds and defaults, without annotations."""
    found = inspect.signature(function)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def fields(struct: type[msgspec.Struct]) -> list[tuple[str, Any, Any]]:
    """Name, type and default of each field; `...` where it is required."""
    hints = typing.get_type_hints(struct)
    found = []
    for field in msgspec.structs.fields(struct):
        default = ... if field.required else field.default
        if default is msgspec.NODEFAULT:
            default = field.default_factory()
        found.append((field.name, hints[field.name], default))
    return found


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            build_dataflow,
            "(plan, *, observability_runtime=None, source=None, sink=None, terminal_sinks=None, error_sinks=None)",
        ),
        (
            build_dataflow_with_shutdown,
            """(plan, *, observability_runtime=None, source=None, sink=None, terminal_sinks=None, error_sinks=None, \
bridge=None, commit_tracker=None)""",
        ),
        (StreamingRunner, "(*, _registry=None)"),
        (StreamingRunner.from_context, "(flow, *, config, observability_runtime=None)"),
        (StreamingRunner.from_yaml, "(flow, path, *, observability_runtime=None)"),
        (StreamingRunner.from_dict, "(flow, config, *, observability_runtime=None)"),
        (StreamingRunner.register_sink, "(self, sink_class)"),
        (StreamingRunner.build_dataflow, "(self)"),
        (StreamingRunner.prepare_run, "(self, *, error_sinks=None)"),
        (
            StreamingRunner.run,
            "(self, *, flow=None, config=None, config_path=None, error_sinks=None, runtime=None)",
        ),
        (StreamingRunner.shutdown, "(self)"),
        (SinkRegistry.register, "(self, sink_class)"),
        (RegisteredSink.build_binding, "(cfg, ctx)"),
        (CommitTracker.confirm, "(self, positions)"),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_a_signature_is_what_was_promised(function: Callable[..., Any], expected: str) -> None:
    assert signature(function) == expected


def test_a_registry_resolves_a_config_alone() -> None:
    parameters = list(inspect.signature(SinkRegistry().resolve).parameters.values())
    assert parameters[0].name == "config"
    assert parameters[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters[1:])


@pytest.mark.parametrize("name", ["from_context", "from_yaml", "from_dict"])
def test_the_loaders_of_a_runner_are_class_methods(name: str) -> None:
    assert isinstance(inspect.getattr_static(StreamingRunner, name), classmethod)


@pytest.mark.parametrize(
    "name",
    [
        "build_dataflow",
        "build_dataflow_with_shutdown",
        "BytewaxRecoverySettings",
        "BytewaxRuntimeConfig",
        "CommitTracker",
        "DuplicateErrorSinkError",
        "ErrorSink",
        "RegisteredSink",
        "RuntimeSinkBinding",
        "SinkRegistry",
        "StreamingRunner",
    ],
)
def test_a_public_name_is_listed_and_importable(name: str) -> None:
    assert name in package.__all__
    assert getattr(package, name) is not None


def test_every_listed_name_is_there() -> None:
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_the_recovery_settings_are_what_was_promised() -> None:
    assert issubclass(BytewaxRecoverySettings, LoomFrozenStruct)
    assert fields(BytewaxRecoverySettings) == [("db_dir", str, ...), ("backup_interval_ms", int | None, None)]


def test_the_runtime_settings_are_what_was_promised() -> None:
    assert issubclass(BytewaxRuntimeConfig, LoomFrozenStruct)
    assert fields(BytewaxRuntimeConfig) == [
        ("workers_per_process", int, 1),
        ("process_id", int | None, None),
        ("addresses", tuple[str, ...] | None, None),
        ("epoch_interval_ms", int | None, None),
        ("recovery", BytewaxRecoverySettings | None, None),
        ("async_backend", Literal["asyncio", "trio"], "asyncio"),
        ("use_uvloop", bool, False),
        ("force_shutdown_timeout_ms", int | None, None),
    ]


def test_a_binding_is_what_was_promised() -> None:
    assert issubclass(RuntimeSinkBinding, LoomFrozenStruct)
    assert fields(RuntimeSinkBinding) == [
        ("purpose", Literal["errors", "terminal", "audit"], ...),
        ("sink", object, ...),
        ("kinds", tuple[ErrorKind, ...], ()),
    ]


def test_structs_are_positional() -> None:
    assert BytewaxRecoverySettings("state", 5) == BytewaxRecoverySettings(db_dir="state", backup_interval_ms=5)
    assert BytewaxRuntimeConfig(2).workers_per_process == 2
    assert RuntimeSinkBinding("errors", None, (ErrorKind.WIRE,)).kinds == (ErrorKind.WIRE,)


def test_an_epoch_is_a_second_long_unless_said_otherwise() -> None:
    assert (BytewaxRuntimeConfig().epoch_ms, BytewaxRuntimeConfig(epoch_interval_ms=7).epoch_ms) == (1000, 7)


def test_the_errors_have_their_bases() -> None:
    assert DuplicateErrorSinkError.__bases__ == (LoomStreamingError,)
    assert LoomStreamingError.__module__ == "loom.streaming.errors"
    assert issubclass(LoomStreamingError, Exception)


@pytest.mark.parametrize("protocol", [RegisteredSink, CommitTracker])
def test_what_users_implement_is_a_protocol(protocol: type) -> None:
    assert typing.Protocol in protocol.__bases__


def test_a_registered_sink_declares_its_type_and_its_config() -> None:
    hints = typing.get_type_hints(RegisteredSink)
    assert hints == {"sink_type": ClassVar[str], "config_type": ClassVar[type]}
    assert isinstance(inspect.getattr_static(RegisteredSink, "build_binding"), classmethod)
    assert typing.get_type_hints(RegisteredSink.build_binding)["return"] is RuntimeSinkBinding


def test_positions_are_handed_over_by_topic_and_partition() -> None:
    assert TopicPartition("orders", 3) == ("orders", 3)
    assert (TopicPartition("orders", 3).topic, TopicPartition("orders", 3).partition) == ("orders", 3)
    assert typing.get_type_hints(CommitTracker.confirm)["positions"] == Mapping[TopicPartition, int]


class Complete:
    sink_type = "complete"
    config_type = Number

    @classmethod
    def build_binding(cls, cfg: Any, ctx: Any) -> RuntimeSinkBinding:
        return RuntimeSinkBinding("terminal", TestingSink([]))


def without(name: str) -> type:
    return type("Lacking", (), {key: value for key, value in vars(Complete).items() if key != name})


@pytest.mark.parametrize("missing", ["sink_type", "config_type", "build_binding"])
def test_a_class_that_lacks_a_part_is_no_registered_sink(missing: str) -> None:
    with pytest.raises(TypeError, match=missing):
        StreamingRunner().register_sink(without(missing))


@pytest.mark.parametrize(
    ("part", "value"), [("sink_type", 7), ("sink_type", None), ("config_type", "Number"), ("build_binding", 3)]
)
def test_a_class_with_a_part_of_another_type_is_no_registered_sink(part: str, value: object) -> None:
    with pytest.raises(TypeError, match=part):
        StreamingRunner().register_sink(type("Odd", (Complete,), {part: value}))


@pytest.mark.parametrize(
    "thing", [None, "complete", Complete(), TestingSink([])], ids=["none", "text", "object", "sink"]
)
def test_only_a_class_can_be_registered(thing: object) -> None:
    with pytest.raises(TypeError):
        StreamingRunner().register_sink(thing)


def test_a_complete_class_is_registered() -> None:
    assert StreamingRunner().register_sink(Complete) is None


@pytest.mark.parametrize("key", ["workers_per_process", "epoch_interval_ms", "force_shutdown_timeout_ms"])
def test_a_runtime_setting_below_one_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        BytewaxRuntimeConfig(**{key: 0})


def open_things() -> tuple[int, int]:
    """Threads, those of clients included, and open files and sockets."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


class Untouched(FixedPartitionedSource[Any, Any], FixedPartitionedSink[Any, Any]):
    """A source, a sink and an `IntoSink` that may be looked at, and not asked for anything."""

    def list_parts(self) -> list[str]:
        raise AssertionError("asked for its parts while the dataflow was put together")

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> Any:
        raise AssertionError("opened while the dataflow was put together")

    def build_partition(self, *arguments: Any, **more: Any) -> Any:
        raise AssertionError("opened while the dataflow was put together")


@pytest.mark.parametrize("build", [build_dataflow, build_dataflow_with_shutdown], ids=lambda build: build.__name__)
@pytest.mark.parametrize("overrides", [{}, {"source": Untouched(), "sink": Untouched()}], ids=["kafka", "overrides"])
def test_building_opens_nothing(build: Callable[..., Any], overrides: dict[str, Any]) -> None:
    # The broker's address leads nowhere: a client that asked it would still have its threads and sockets.
    plan = compile_flow(FLOW, config=config_for("192.0.2.1:9092", consumer={"delivery": "at_least_once"}))
    build(plan, **overrides)  # what is imported once is not counted
    before = open_things()
    built = build(plan, **overrides)
    # What an earlier test left, a timer of its stop say, may end meanwhile.
    assert all(now <= then for now, then in zip(open_things(), before, strict=True))
    assert isinstance(getattr(built, "dataflow", built), Dataflow)
    if built is not getattr(built, "dataflow", built):
        built.shutdown()


def test_a_built_dataflow_has_its_dataflow_and_its_shutdown() -> None:
    built = build_dataflow_with_shutdown(compile_flow(FLOW, config=config_for()))
    assert isinstance(built.dataflow, Dataflow)
    assert [built.shutdown(), built.shutdown()] == [None, None]


def test_shutting_down_after_a_run_is_no_harm() -> None:
    taken: list[Any] = []
    plan = compile_flow(FLOW, config=config_for())
    built = build_dataflow_with_shutdown(plan, source=TestingSource(numbers(1)), sink=TestingSink(taken))
    from bytewax.testing import run_main

    run_main(built.dataflow)
    built.shutdown()
    built.shutdown()
    assert [message.payload.n for message in taken] == [2]


def test_a_runner_may_be_shut_down_at_any_time_and_twice() -> None:
    runner = StreamingRunner.from_dict(FLOW, config_for())
    runner.shutdown()
    assert isinstance(runner.build_dataflow(), Dataflow)
    runner.shutdown()
    runner.shutdown()
    prepared = runner.prepare_run()
    assert isinstance(prepared.dataflow, Dataflow)
    prepared.shutdown()
    prepared.shutdown()
    runner.shutdown()


def test_a_runner_gives_the_signals_back_however_often_it_prepares() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    runner = StreamingRunner.from_dict(FLOW, config_for())
    for _ in range(3):
        runner.prepare_run()
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    runner.shutdown()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


BROKEN = StreamFlow("doubling", FromTopic("numbers", Number), Process(double))


@pytest.mark.parametrize("use", ["build_dataflow", "prepare_run", "run"])
def test_a_runner_compiles_at_its_first_use_and_not_before(use: str) -> None:
    runner = StreamingRunner.from_dict(BROKEN, config_for())
    with pytest.raises(CompilationError, match="no-end"):
        getattr(runner, use)()


def test_a_runner_without_a_flow_says_so() -> None:
    with pytest.raises(Exception, match="no flow yet"):
        StreamingRunner().run()


def test_config_and_config_path_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not both"):
        StreamingRunner().run(flow=FLOW, config=config_for(), config_path=tmp_path / "loom.yaml")


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ({"source": [1, 2]}, TypeError),
        ({"source": TestingSink([])}, TypeError),
        ({"terminal_sinks": {(0,): TestingSink([])}}, ValueError),
        ({"commit_tracker": object()}, TypeError),
    ],
    ids=["list-as-source", "sink-as-source", "path-without-terminal", "no-tracker"],
)
def test_an_override_that_cannot_be_one_is_refused_when_the_dataflow_is_built(
    override: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        build_dataflow_with_shutdown(compile_flow(FLOW, config=config_for()), **override)


def test_a_sink_for_an_output_that_the_flow_does_not_have_is_refused() -> None:
    ends_inside = StreamFlow("doubling", FromTopic("numbers", Number), Process(double, IntoTopic("doubled")))
    plan = compile_flow(ends_inside, config=config_for())
    with pytest.raises(ValueError, match="terminal_sinks"):
        build_dataflow(plan, sink=TestingSink([]))


def test_what_is_neither_a_bytewax_sink_nor_an_into_sink_is_refused() -> None:
    with pytest.raises(Exception) as caught:
        in_memory(FLOW, numbers(1), sink=object())
    assert "IntoSink" in str(caught.value.__cause__ or caught.value) or isinstance(caught.value, TypeError)
