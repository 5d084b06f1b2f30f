"""Which engine a flow runs on, what each of them can do, and what is said where one is missing."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.config import ConfigContext, ConfigError
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, compile_flow, step
from loom.streaming.bytewax import EngineMissingError, build_dataflow, build_dataflow_with_shutdown
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from loom.streaming.runtime import engine as engines
from loom.streaming.runtime.prepare import prepare
from loom.streaming.testing import StreamingTestRunner
from tests.support.running import all_done, config_for, content, produce, run_until


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


FLOW = StreamFlow("chosen", FromTopic("numbers", Number), Process(same), IntoTopic("out"))


def config(bootstrap: str = "127.0.0.1:1", engine: str | None = None, **runtime: Any) -> dict[str, Any]:
    made = config_for(bootstrap, runtime=runtime)
    if engine is not None:
        made["streaming"]["engine"] = engine
    return made


def refused(made: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as found:
        prepare(FLOW, ConfigContext.from_dict(made), None)
    return [(problem.key, problem.describe()) for problem in found.value.problems]


@pytest.fixture
def without_bytewax(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the engine is not installed."""
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    monkeypatch.setattr(engines, "default_engine", lambda: "bytewax" if engines.is_installed("bytewax") else "loop")


def used(bootstrap: str, engine: str | None) -> str:
    runner = StreamingRunner.from_dict(FLOW, config(bootstrap, engine))
    run_until(runner, all_done(1))
    assert runner._prepared is not None
    return runner._prepared.engine


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    broker.create_topic("numbers")
    broker.create_topic("out")
    produce(broker.bootstrap, "numbers", b'{"n":1}')
    return broker.bootstrap


def test_the_config_names_the_engine(bootstrap: str) -> None:
    assert used(bootstrap, "loop") == "loop"


@pytest.mark.bytewax
def test_the_default_is_bytewax_where_it_is_installed(bootstrap: str) -> None:
    assert used(bootstrap, None) == "bytewax"


def test_the_default_is_the_loop_where_it_is_not(bootstrap: str, without_bytewax: None) -> None:
    assert used(bootstrap, None) == "loop"


def test_an_engine_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"streaming\.engine"):
        prepare(FLOW, ConfigContext.from_dict(config(engine="flink")), None)


def test_bytewax_is_refused_where_it_is_not_installed(without_bytewax: None) -> None:
    ((key, told),) = refused(config(engine="bytewax"))
    assert key == "streaming.engine"
    assert "is bytewax, and the package bytewax is not installed here" in told
    assert "set it to loop" in told


def test_a_flow_that_runs_elsewhere_may_name_an_engine_that_is_not_here(without_bytewax: None) -> None:
    prepare(FLOW, ConfigContext.from_dict(config(engine="bytewax")), None, elsewhere=True)
    runner = StreamingTestRunner.from_dict(FLOW, config(engine="bytewax"))
    assert [message.payload for message in runner.with_payloads([Number(7)]).run().output] == [Number(7)]


def test_the_loop_keeps_no_recovery_store_and_says_what_to_do(tmp_path: Any) -> None:
    ((key, told),) = refused(config(engine="loop", recovery={"db_dir": str(tmp_path)}))
    assert key == "streaming.runtime.recovery"
    assert "only the engine bytewax keeps a recovery store, and streaming.engine is loop" in told
    assert "the consumer group keeps the positions" in told
    assert not list(tmp_path.iterdir())


def test_without_bytewax_a_recovery_store_is_refused_with_that_reason(tmp_path: Any, without_bytewax: None) -> None:
    ((key, told),) = refused(config(recovery={"db_dir": str(tmp_path)}))
    assert key == "streaming.runtime.recovery"
    assert "run it with Python 3.11 or 3.12 and bytewax" in told


def test_the_loop_forms_no_cluster_and_says_what_to_do() -> None:
    ((key, told),) = refused(config(engine="loop", process_id=0, addresses=["a:1", "b:1"]))
    assert key == "streaming.runtime.addresses"
    assert "only the engine bytewax forms clusters of processes, and streaming.engine is loop" in told
    assert "LOOM_PROCESSES" in told


def test_processes_that_know_nothing_of_each_other_may_run_on_the_loop(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 0 of 2 reads the partitions 0 and 2."""
    numbers = [KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n) for n in range(1, 4)]
    produce(bootstrap, "numbers", *numbers)
    monkeypatch.setenv("LOOM_PROCESS_ID", "0")
    monkeypatch.setenv("LOOM_PROCESSES", "2")
    run_until(StreamingRunner.from_dict(FLOW, config(bootstrap, "loop", workers_per_process=2)), all_done(2))
    assert sorted(record.value or b"" for record in content(bootstrap, "out")["out"]) == [b'{"n":1}', b'{"n":2}']


@pytest.mark.parametrize("build", [build_dataflow, build_dataflow_with_shutdown])
def test_a_dataflow_needs_bytewax_and_says_so(build: Any, without_bytewax: None) -> None:
    with pytest.raises(EngineMissingError, match=r"the package bytewax is not installed here.*StreamingRunner\.run"):
        build(compile_flow(FLOW, config=config()))
    runner = StreamingRunner.from_dict(FLOW, config())
    with pytest.raises(EngineMissingError):
        runner.build_dataflow()
    runner.shutdown()


def test_a_run_may_be_prepared_without_bytewax(without_bytewax: None) -> None:
    prepared = StreamingRunner.from_dict(FLOW, config()).prepare_run()
    prepared.shutdown()
    with pytest.raises(EngineMissingError):
        _ = prepared.dataflow


@pytest.mark.bytewax
def test_a_dataflow_is_bytewaxs_whatever_the_config_says() -> None:
    runner = StreamingRunner.from_dict(FLOW, config(engine="loop"))
    assert type(runner.build_dataflow()).__module__ == "bytewax.dataflow"
    runner.shutdown()
