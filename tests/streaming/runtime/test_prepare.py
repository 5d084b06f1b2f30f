"""What needs no broker is refused alike by whoever is asked to run a flow, to check it or to test it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from loom.cli.commands.check import check_flow
from loom.cli.exit_codes import Exit, exit_for
from loom.core.config import ConfigContext, ConfigError
from loom.core.errors import LoomError
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, RecordStep, StreamFlow, StreamingRunner, step
from loom.streaming.bytewax import RecoveryDirectoryError
from loom.streaming.compiler import CompilationError
from loom.streaming.testing import StreamingTestRunner
from tests.support.running import config_for


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


class Unmade(RecordStep[Number, Number]):
    def __init__(self, limit: int) -> None:
        self.limit = limit


def flow_of(node: Any = same) -> StreamFlow[Any, Any]:
    return StreamFlow("numbers", FromTopic("numbers", Number), Process(node), IntoTopic("out", Number))


def check(flow: StreamFlow[Any, Any], config: Mapping[str, Any]) -> object:
    return check_flow(flow, ConfigContext.from_dict(config), [])


def run(flow: StreamFlow[Any, Any], config: Mapping[str, Any]) -> object:
    return StreamingRunner.from_dict(flow, config).run()


def prepare_run(flow: StreamFlow[Any, Any], config: Mapping[str, Any]) -> object:
    return StreamingRunner.from_dict(flow, config).prepare_run()


def test_kit(flow: StreamFlow[Any, Any], config: Mapping[str, Any]) -> object:
    return StreamingTestRunner.from_dict(flow, config).run()


test_kit.__test__ = False  # type: ignore[attr-defined]

Entry = Callable[[StreamFlow[Any, Any], Mapping[str, Any]], object]
ON_THIS_MACHINE: tuple[Entry, ...] = (check, run, prepare_run)
EVERYBODY: tuple[Entry, ...] = (*ON_THIS_MACHINE, test_kit)


def streaming(**sections: Any) -> dict[str, Any]:
    return {**config_for(), "streaming": sections}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown section": (streaming(runtmie={}), r"streaming\.runtmie"),
    "unknown runtime key": (streaming(runtime={"epoch_ms": 5}), r"streaming\.runtime\.epoch_ms"),
    "wrong runtime value": (streaming(runtime={"workers_per_process": 0}), r"workers_per_process: must be at least 1"),
    "unknown supervision key": (streaming(supervision={"restart": 1}), r"streaming\.supervision\.restart"),
    "several processes": (streaming(runtime={"process_id": 0}), "process_id: needs a partner"),
    "tracing by gRPC": (config_for(observability={"otel": {"protocol": "grpc"}}), r"observability\.otel\.protocol"),
    "unknown observer": (config_for(observability={"logg": {}}), r"observability\.logg"),
    "wrong log level": (config_for(observability={"log": {"level": "loud"}}), r"observability\.log\.level"),
    "unknown consumer property": (
        config_for(consumer={"extra": {"no.such": 1}}),
        r'kafka\.consumer\.extra\["no\.such"\]',
    ),
    "unknown producer property": (
        config_for(producer={"extra": {"no.such": 1}}),
        r'kafka\.producer\.extra\["no\.such"\]',
    ),
    "wrong property": (
        config_for(producer={"extra": {"linger.ms": "soon"}}),
        r'kafka\.producer\.extra\["linger\.ms"\]',
    ),
    "no password": (
        config_for(consumer={"security": {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}}),
        r"kafka\.consumer: .*sasl\.password",
    ),
    "transaction shorter than a delivery": (
        config_for(
            consumer={"delivery": "exactly_once"},
            producer={"extra": {"transaction.timeout.ms": 30_000, "message.timeout.ms": 40_000}},
        ),
        r"message\.timeout\.ms",
    ),
    "epochs longer than a transaction": (
        config_for(consumer={"delivery": "exactly_once"}, runtime={"epoch_interval_ms": 50_000}),
        "epoch_interval_ms of at most",
    ),
}


@pytest.mark.parametrize("entry", EVERYBODY, ids=lambda entry: entry.__name__)
@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_no_broker_is_refused_by_everybody(entry: Entry, case: str) -> None:
    config, told = REFUSED[case]
    with pytest.raises(LoomError, match=told) as refused:
        entry(flow_of(), config)
    assert exit_for(refused.value) in (Exit.CONFIG, Exit.COMPILATION)


@pytest.mark.parametrize("key", ["ssl_ca_location", "ssl_certificate_location", "ssl_key_location"])
@pytest.mark.parametrize("entry", ON_THIS_MACHINE, ids=lambda entry: entry.__name__)
def test_a_certificate_that_is_not_there_is_named(entry: Entry, key: str) -> None:
    config = config_for(producer={"security": {"protocol": "SSL", key: "/nowhere/at/all.pem"}})
    with pytest.raises(ConfigError, match=rf"kafka\.producer\.security\.{key}: there is no such file"):
        entry(flow_of(), config)


@pytest.mark.bytewax
@pytest.mark.parametrize("entry", ON_THIS_MACHINE, ids=lambda entry: entry.__name__)
def test_a_recovery_directory_below_a_file_is_refused(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(RecoveryDirectoryError, match="Not a directory"):
        entry(flow_of(), config_for(runtime={"recovery": {"db_dir": str(tmp_path / "taken" / "state")}}))


@pytest.mark.bytewax
def test_checking_makes_no_recovery_directory(tmp_path: Path) -> None:
    check(flow_of(), config_for(runtime={"recovery": {"db_dir": str(tmp_path / "state")}}))
    assert not (tmp_path / "state").exists()


def test_a_flow_is_tested_without_the_files_of_the_machine_that_it_will_run_on(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    config = config_for(
        producer={"security": {"protocol": "SSL", "ssl_ca_location": "/nowhere/at/all.pem"}},
        consumer={"security": {"protocol": "SSL", "ssl_ca_location": "/nowhere/at/all.pem"}},
        runtime={"recovery": {"db_dir": str(tmp_path / "taken" / "state")}},
    )
    runner = StreamingTestRunner.from_dict(flow_of(), config).with_payloads([Number(1)]).run()
    assert [message.payload for message in runner.output] == [Number(1)]


@pytest.mark.parametrize("entry", EVERYBODY, ids=lambda entry: entry.__name__)
def test_everything_that_is_wrong_is_told_at_once(entry: Entry) -> None:
    config = config_for(
        consumer={"group_idd": "typed"},
        observability={"lgo": {}},
        runtime={"epoch": 1},
    )
    with pytest.raises(CompilationError) as refused:
        entry(flow_of(Unmade), config)
    told = str(refused.value)
    for key in ("kafka.consumer.group_idd", "streaming.runtime.epoch", "observability.lgo", "Unmade"):
        assert key in told


def test_a_refused_property_is_told_without_its_value() -> None:
    config = config_for(producer={"extra": {"debug": "hunter2-is-nobodys-business", "linger.ms": "soonish"}})
    with pytest.raises(ConfigError) as refused:
        check(flow_of(), config)
    assert "extra.debug" in str(refused.value)
    assert 'extra["linger.ms"]' in str(refused.value)
    assert "hunter2" not in str(refused.value)
